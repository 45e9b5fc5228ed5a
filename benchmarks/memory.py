"""Peak memory of a whole run over media while the input grows: `python benchmarks/memory.py --times 1 10`.

The quickstart's pictures, videos and sounds, repeated with changed bytes (each copy is another content), through a
whole `curate run` with signals that need no large model. Flat means that the peaks at ten or a hundred times the input
stay where they were. `scale.py` does the same for pictures alone, up to a million.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from pathlib import Path

from parts.process_tree import Measured, run

from curate.cli.demo import demo_package

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
ROLES = ("driver", "worker", "helper")
"""Of processes: the command, Ray's workers, and their helper processes."""


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


def measure(project: Path, workers: int) -> Measured:
    """A whole run of the project's recipe."""
    command = [sys.executable, "-m", "curate.cli.main", "run", project / "memory.yaml", "--out", project / "build"]
    done = run([*command, "--workers", str(workers), "--no-dashboard"], {}, project / "log")
    if done.code:
        raise SystemExit(done.said)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10], help="how often the media are repeated")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = demo_package("quickstart").prepare(Path(folder)).folder / "folder"
        found = {}
        for times in args.times:
            project = Path(folder) / f"times-{times}"
            count = repeat(media, project / "media", times)
            (project / "memory.yaml").write_text(RECIPE)
            found[times] = measure(project, args.workers)
            peaks = ", ".join(f"{role} {found[times].peaks[role] / 2**20:.0f} MiB" for role in ROLES)
            print(f"{times} x: {count} files, {found[times].wall:.0f} s: {peaks}")
        first, last = args.times[0], args.times[-1]
        for role in ROLES:
            print(f"{role}: {last} x over {first} x = {found[last].peaks[role] / found[first].peaks[role]:.2f}")


if __name__ == "__main__":
    main()
