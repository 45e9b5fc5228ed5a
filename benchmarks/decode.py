"""How many seconds of video a CPU second decodes, by each reader (`media.reader` of a recipe).

Clips of moving noise are made with PyAV (H.264, MP4), so that nothing is downloaded. Each reader decodes the same clips
into the same views, in turns, so that what else the machine does weighs on all alike; counted is the CPU time of this
process. `decord alone` is decord without PyAV beside it, which no recipe offers: nothing tells it of damaged frames.

    python benchmarks/decode.py
    python benchmarks/decode.py --seconds 20 --runs 9 --json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from PIL import Image

from curate.media.decode import decode
from curate.media.images import render
from curate.media.reader import READERS
from curate.media.requests import Frames, pick_times

SIZES = ((640, 360), (1280, 720))
FPS = 25
VIEWS = {"1 frame/s": Frames(224, 1.0, 10_000), "8 frames/s": Frames(224, 8.0, 10_000), "all": Frames(224, FPS, 10_000)}


def clip(width: int, height: int, seconds: float) -> bytes:
    """A clip of noise that moves by a pixel a frame and changes every two seconds."""
    out = BytesIO()
    rng = np.random.default_rng(0)
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuv420p", Fraction(1, FPS)
        for i in range(round(seconds * FPS)):
            if i % (2 * FPS) == 0:
                small = rng.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
                scene = np.asarray(Image.fromarray(small).resize((width, height)))
            frame = av.VideoFrame.from_ndarray(np.roll(scene, i, 1), "rgb24")
            frame.pts = i
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def by(reader: str, data: bytes, view: Frames, seconds: float) -> int:
    """Decode a clip; how many frames of the view there were."""
    if reader != "decord alone":
        return len(decode(data, "video", [view], reader=reader, limit_s=600).views[view])
    import decord

    video = decord.VideoReader(BytesIO(data), num_threads=1)
    picks = [min(int(t * FPS), len(video) - 1) for t in pick_times(seconds, view.fps, view.max_frames)]
    return len([render(Image.fromarray(video[i].asnumpy()), view) for i in picks])


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    readers = [*READERS, "decord alone"]
    rows = []
    for width, height in SIZES:
        data = clip(width, height, args.seconds)
        for name, view in VIEWS.items():
            counts = {reader: by(reader, data, view, args.seconds) for reader in readers}
            if len(set(counts.values())) > 1:
                raise SystemExit(f"the readers differ: {counts}")
            times: dict[str, list[float]] = {reader: [] for reader in readers}
            for _ in range(args.runs):
                for reader in readers:
                    times[reader].append(cpu_seconds(lambda: by(reader, data, view, args.seconds)))  # noqa: B023
            speeds = {reader: args.seconds / statistics.median(some) for reader, some in times.items()}
            rows.append({"size": f"{width}x{height}", "frames": name, "count": counts["pyav"], **speeds})
    if args.json:
        print(json.dumps(rows))
        return
    print(
        f"{platform.machine()}, Python {platform.python_version()}, PyAV {av.__version__}; median of {args.runs} runs"
    )
    print(f"| size | frames | {' | '.join(f'{reader}, s of video / CPU s' for reader in readers)} |")
    print("| --- " * (2 + len(readers)) + "|")
    for row in rows:
        speeds = " | ".join(f"{row[reader]:.1f}" for reader in readers)
        print(f"| {row['size']} | {row['frames']} ({row['count']}) | {speeds} |")


if __name__ == "__main__":
    main()
