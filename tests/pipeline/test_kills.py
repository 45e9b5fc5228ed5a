"""Kill anything, run the same command again: the bytes of an undisturbed run, and nothing left over (laws 1, 6, 7)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kills import Kill, Killer, draw
from small import RECIPE, Project, digests

KILLS = 104
KILLS_A_BUILD = 8

# signals without a large model: a start takes seconds, so that there can be many; and a second look
LIGHT = (
    RECIPE.replace("  - name: conse\n", "")
    .replace("  - name: voice_activity\n", "")
    .replace("- name: motion\n", "- {name: motion, for: kept}\n")
)


def killed_build(project: Project, out: Path, kills: list[Kill], text: str = LIGHT) -> Killer:
    """A build through `kills`, ended, verified, without leftovers."""
    recipe = project.root / "killed.yaml"
    recipe.write_text(text)
    command = project.command("run", recipe, "--out", out, "--workers", 2, "--json")
    killer = Killer(command, out.parent / "log")
    killer.run(kills)
    report = json.loads(project.curate("verify", out, "--json").stdout)
    assert report["problems"] == []
    for sums in (report["records"], report["samples"]):
        assert 2 * sums["total"] == sum(sums.values())
    assert not [p for p in out.rglob(".*") if p.is_file()], "a temporary file is left"
    return killer


@pytest.fixture(scope="module")
def undisturbed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of the light build and their digests."""
    out = tmp_path_factory.mktemp("undisturbed") / "build"
    killed_build(project, out, [])
    return digests(out)


def test_a_few_kills(project: Project, small_build: Path, tmp_path: Path) -> None:
    """A worker, a helper process, and at last everything: the first two cost a retry, the third a second start."""
    kills = [Kill("annotate", 1.0, "worker"), Kill("annotate", 3.0, "helper"), Kill("tokenize", 3.0, "everything")]
    killer = killed_build(project, tmp_path / "build", kills, RECIPE)
    print(killer.summary())
    assert [target for _, target in killer.killed][-1:] == ["everything"]
    assert killer.starts == 2
    assert digests(tmp_path / "build") == digests(small_build)


@pytest.mark.long
def test_a_hundred_kills_at_random_moments(
    project: Project, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = 0
    seed = 0
    while done < KILLS:
        out = tmp_path / f"seed-{seed}" / "build"
        out.parent.mkdir()
        killer = killed_build(project, out, draw(seed, KILLS_A_BUILD))
        done += len(killer.killed)
        with capsys.disabled():
            print(f"seed {seed}: {killer.summary()}; {done} in all", flush=True)
        assert digests(out) == undisturbed, f"seed {seed}"
        seed += 1
