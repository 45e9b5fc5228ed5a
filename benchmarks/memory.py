"""Peak memory of `annotate` and `tokenize` while the input grows: `python benchmarks/memory.py --times 1 10`.

The quickstart's media, repeated with changed bytes (each copy is another content), through a whole `curate run` with
signals that need no large model. Every half second the resident memory of the driver, of Ray's workers and of their
helper processes is read. Flat means that the peaks at ten or a hundred times the input stay where they were.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from curate.demo.prepare import prepare

RECIPE = """\
name: memory
partition: 64
sources:
  - {kind: folder, name: repeated, path: media}
cut: {min_seconds: 1.0, max_seconds: 4.0}
annotate:
  - name: sharpness
  - name: brightness
  - name: motion
  - name: loudness
  - name: tiny_image
tokenize:
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k, fps: 1, max_frames: 1}
    - {name: tok_audio@16k, tokenizer: audio-rvq-4kbps}
pack: {splits: {train: 1.0}}
max_failed: 1.0
"""
STAGES = ("ingest", "cut", "annotate", "decide", "tokenize", "pack", "card")


def changed(data: bytes, suffix: str, copy: int) -> bytes:
    """The same picture, sound or video with other bytes: something at the end that decoders pass over."""
    if suffix == ".mp4":
        return data + struct.pack(">I4sQ", 16, b"free", copy)
    return data + struct.pack(">Q", copy)


def repeat(media: Path, to: Path, times: int) -> int:
    """Copies of the folder's pictures, sounds and videos; how many."""
    count = 0
    for path in sorted(p for p in media.rglob("*") if p.suffix in {".png", ".jpg", ".mp4", ".wav"}):
        data = path.read_bytes()
        for copy in range(times if data else 0):
            name = to / f"{copy:04d}" / f"{path.parent.name}-{path.name}"
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(changed(data, path.suffix, copy) if copy else data)
            count += 1
    return count


def processes(driver: int) -> dict[int, str]:
    """Command lines of a process and of all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    found = [driver]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    lines = {}
    for pid in found:
        try:
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return lines


def resident(pid: int) -> float:
    """Resident memory in MiB; 0 where the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def role(pid: int, said: str, driver: int) -> str | None:
    """What a process of the run is, as far as it is counted."""
    if pid == driver:
        return "driver"
    if "curate.helper.child" in said:
        return "helper"
    return "worker" if said.startswith("ray::") else None


def measure(project: Path, workers: int) -> dict[str, dict[str, float]]:
    """Run, and give the peak in MiB of the driver, of the largest worker and of the largest helper, a stage each."""
    command = ["run", project / "memory.yaml", "--out", project / "build", "--workers", workers, "--json"]
    log = (project / "log").open("wb")
    started = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, "-m", "curate.cli.main", *map(str, command), "--no-dashboard"],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    peaks: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    stage = "start"
    while run.poll() is None:
        for line in (project / "log").read_text().splitlines():
            if line.startswith('{"event": "stage_start"'):
                stage = json.loads(line)["stage"]
        for pid, said in processes(run.pid).items():
            kind = role(pid, said, run.pid)
            if kind:
                peaks[stage][kind] = max(peaks[stage][kind], resident(pid))
        time.sleep(0.5)
    if run.returncode:
        raise SystemExit((project / "log").read_text()[-3000:])
    peaks["all"]["seconds"] = time.monotonic() - started
    return {name: dict(peaks[name]) for name in (*STAGES, "all") if name in peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10], help="how often the media are repeated")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = prepare(Path(folder)).folder / "folder"
        found = {}
        for times in args.times:
            project = Path(folder) / f"times-{times}"
            count = repeat(media, project / "media", times)
            (project / "memory.yaml").write_text(RECIPE)
            found[times] = measure(project, args.workers)
            print(f"{times} x: {count} files, {found[times]['all']['seconds']:.0f} s")
            for stage in (name for name in STAGES if name in found[times]):  # a short one may not have been seen
                print(f"  {stage:<9}", ", ".join(f"{k} {v:.0f} MiB" for k, v in sorted(found[times][stage].items())))
        first, last = args.times[0], args.times[-1]
        for stage in ("annotate", "tokenize"):
            for kind in sorted(found[first][stage]):
                ratio = found[last][stage][kind] / found[first][stage][kind]
                print(f"{stage} {kind}: {last} x over {first} x = {ratio:.2f}")


if __name__ == "__main__":
    main()
