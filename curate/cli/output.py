"""What commands print for people: plain lines, and tables without frames."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table


def console(errors: bool = False) -> Console:
    """Lines as they are, on stdout or on stderr: no markup, no colours of numbers, none broken."""
    return Console(file=sys.stderr if errors else None, highlight=False, soft_wrap=True, markup=False)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], whole: str = "") -> None:
    """A table on stdout: as wide as the terminal, or as it needs where it goes into a pipe or a file.

    Args:
        whole: a heading whose cells are not broken into lines.
    """
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == whole)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 100_000
    Console(highlight=False, markup=False, width=width).print(table)


def sum_line(level: str, counts: Mapping[str, int]) -> str:
    """`records: 5 = 3 sampled + 2 failed ...`, of counts with a `total`."""
    return f"{level}: {counts['total']} = {' + '.join(f'{n} {name}' for name, n in counts.items() if name != 'total')}"
