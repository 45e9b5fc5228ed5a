"""A Ray cluster that is already there, started as a user starts one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_cluster import ray_head
from small import RECIPE, Project, digests

TOKEN = "a-token-of-the-tests-0123456789abcdef"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with the token authentication that is its default."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with ray_head(2) as (_, address):
        yield address


@pytest.mark.long
def test_the_same_recipe_gives_the_same_bytes_on_a_cluster(
    address: str, small_build: Path, project: Project, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    project.recipe.write_text(RECIPE)
    project.curate("run", project.recipe, "--out", out, "--address", address)
    assert digests(out) == digests(small_build)
