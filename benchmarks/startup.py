"""How soon the command answers: what takes no work, and mistakes, in seconds, beside Python's own start.

    python benchmarks/startup.py [--repeat 5]
    python benchmarks/startup.py --imports    # and what each answer spends on imports, the slowest first

Each answer is a process of its own, the median of `--repeat`, in turn, after one that leaves compiled files. *Ratio*
is of CPU seconds to those of `python -c pass`. *Modules* are those that were imported, by `python -X importtime`, whose
own cost is not in the seconds. The bar is 1 s for a mistake that needs no model.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter

SOUND = """\
name: startup
sources: [{kind: folder, name: here, path: %s}]
annotate: [{name: sharpness}%s]
decide: {rules: [{field: %s, min: 40}]}
tokenize: {streams: [{name: caption, tokenizer: %s}]}
"""
SHOWN = 12
"""Imports that are shown of an answer."""

_LINE = re.compile(r"import time:\s+\d+ \|\s+(\d+) \|\s*(\S+)")


def answers(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Commands by what they are, with their exit codes."""
    media = folder / "media"
    media.mkdir()
    recipes = {
        "a field that no signal gives": ("", "sharpnes", "text-bpe-8k"),
        "a signal that there is not": (", {name: brightnes}", "sharpness", "text-bpe-8k"),
        "a tag of CLIP that there is not": (
            ", {name: clip, model: ViT-B-32, pretrained: laion2b}",
            "sharpness",
            "text-bpe-8k",
        ),
        "a tokenizer that there is not": ("", "sharpness", "text-bpe-9k"),
    }
    out = {
        "python -c pass": (["-c", "pass"], 0),
        "curate --help": (["-m", "curate.cli.main", "--help"], 0),
        "no such recipe": (["-m", "curate.cli.main", "run", str(folder / "none.yaml")], 2),
    }
    for i, (said, values) in enumerate(recipes.items()):
        recipe = folder / f"{i}.yaml"
        recipe.write_text(SOUND % (media, *values))
        out[said] = (["-m", "curate.cli.main", "run", str(recipe), "--out", str(folder / "out")], 2)
    return out


def run(arguments: list[str], code: int, *options: str) -> tuple[float, float, str]:
    """Seconds and CPU seconds that a process took, and what it said; it must end with `code`."""
    start, before = perf_counter(), getrusage(RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *options, *arguments], capture_output=True, text=True, check=False)
    seconds, after = perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{arguments} ended with {done.returncode} and not {code}:\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--imports", action="store_true", help="show the slowest imports of each answer")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="curate-benchmark-") as scratch:
        todo = answers(Path(scratch))
        told = {said: run(*asked, "-X", "importtime")[2] for said, asked in todo.items()}
        taken: dict[str, list[tuple[float, float]]] = {said: [] for said in todo}
        for _ in range(args.repeat):
            for said, asked in todo.items():
                taken[said].append(run(*asked)[:2])
    print("| answer | s | CPU s | ratio | modules |\n| --- | --- | --- | --- | --- |")
    base = median(cpu for _, cpu in taken["python -c pass"])
    for said in todo:
        seconds, cpu = (median(some) for some in zip(*taken[said], strict=True))
        found = [(int(one[1]) / 1000, one[2]) for one in _LINE.finditer(told[said])]
        print(f"| {said} | {seconds:.2f} | {cpu:.2f} | {cpu / base:.0f} | {len(found)} |")
        for ms, name in sorted(found, reverse=True)[: SHOWN * args.imports]:
            print(f"|   {name} | {ms / 1000:.3f} | | | |")


if __name__ == "__main__":
    main()
