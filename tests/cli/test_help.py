"""The help of every command teaches by examples that can be copied from a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer.main
from typer.testing import CliRunner

from curate.cli.main import app


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, str]]:
    """Each command as it is typed, with its help as it was written."""
    yield " ".join(path), command.help or ""
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *path, name)


HELP = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", HELP)
def test_every_help_teaches_by_example(command: str) -> None:
    written = HELP[command].partition("```sh\n")[2].partition("```")[0].split("\n")
    examples = [line.strip() for line in written if line.strip()]
    assert any(line.startswith(f"curate {command}".strip()) for line in examples)
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    shown = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in examples if line not in shown] == []  # a line that is broken cannot be copied
