"""The quickstart's media on disk: made once, named by what they are made of, put in place whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from curate.schema.errors import CurateError
from curate.schema.ids import digest, key_of

from .faults import FAULTS, make_faults
from .items import Item, items
from .packages import versions
from .serve import TROUBLES
from .sounds import SOUNDS, make_sounds

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class DemoMedia:
    """Prepared media.

    Attributes:
        folder: holds `folder/` (a folder source), `tars/*.tar` (WebDataset), `web.csv` (a table of relative urls, with
            the columns url, caption, licence, credit) and `served/` (what its urls name).
    """

    folder: Path

    def env(self, base_url: str) -> dict[str, str]:
        """What stands for ${CURATE_DEMO} and ${CURATE_DEMO_URL} in a recipe."""
        return {"CURATE_DEMO": str(self.folder), "CURATE_DEMO_URL": base_url}


def prepare(folder: Path) -> DemoMedia:
    """Make the media under `folder`, unless they are there. Takes seconds and some 20 MB.

    They lie in a folder named by their content: the code and captions they come of and the versions of the packages,
    so that a change makes new ones and never mends old ones. The same versions give the same bytes.

    Raises:
        CurateError: a package that carries media is not installed, or the folder cannot be written.
    """
    target = folder / f"quickstart-{_version()}"
    if target.is_dir():
        return DemoMedia(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".quickstart-", dir=folder) as temporary:
            made = Path(temporary) / "made"
            _make(made)
            try:
                os.replace(made, target)  # noqa: PTH105 - a folder
            except OSError:
                if not target.is_dir():  # otherwise another process was first, with the same bytes
                    raise
    except OSError as exc:
        raise CurateError(f"the demonstration's media cannot be written to {folder}: {exc}") from exc
    return DemoMedia(target)


def _version() -> str:
    """12 hex digits of all that the bytes depend on."""
    files = sorted(path for path in _HERE.iterdir() if path.suffix in (".py", ".yaml", ".tar"))
    code = [[path.name, digest(path.read_bytes())] for path in files]
    encoders = {name: metadata.version(name) for name in ("av", "pillow", "numpy")}
    return key_of([code, versions(), encoders])[:12]


def _make(root: Path) -> None:
    for name in ("folder/photos", "folder/videos", "folder/sounds", "folder/faults", "tars", "served"):
        (root / name).mkdir(parents=True)
    listed = items()
    for item in listed:
        if not item.to.startswith("photos/"):
            shutil.copyfile(item.source(), root / item.to)
        if item.to.startswith("folder/"):
            _sidecars(root / item.to, item.caption, item.licence, item.credit)
    make_sounds(root / "folder/sounds")
    make_faults(root / "folder/faults")
    for folder, made in (("folder/sounds", SOUNDS), ("folder/faults", FAULTS)):
        for one in made:
            _sidecars(root / folder / one.name, one.caption, one.licence, one.of)
    _tar(root / "tars/photos.tar", [item for item in listed if item.to.startswith("photos/")])
    shutil.copyfile(_HERE / "openclipart.tar", root / "tars/openclipart.tar")
    _table(root / "web.csv", [item for item in listed if item.to.startswith("served/")])


def _sidecars(path: Path, caption: str | None, licence: str | None, credit: str) -> None:
    if caption is not None:
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    about = {"credit": credit, "licence": licence}
    path.with_suffix(".json").write_text(json.dumps(about, sort_keys=True) + "\n", encoding="utf-8")


def _tar(path: Path, listed: Iterable[Item]) -> None:
    """Members sorted, without dates and owners; the words are in the .json."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for item in sorted(listed, key=lambda item: item.to):
            name = Path(item.to).name
            about = {"caption": item.caption, "credit": item.credit, "licence": item.licence}
            words = json.dumps(about, sort_keys=True).encode() + b"\n"
            for member, data in ((name, item.source().read_bytes()), (Path(name).stem + ".json", words)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _table(path: Path, served: Iterable[Item]) -> None:
    by_name = {Path(item.to).name: item for item in served}
    elsewhere = {trouble.leads_to for trouble in TROUBLES.values()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["url", "caption", "licence", "credit"])
        for name, item in by_name.items():
            if name not in elsewhere:  # only to be had by its redirect
                writer.writerow([name, item.caption or "", item.licence, item.credit])
        for name, trouble in TROUBLES.items():
            to = by_name.get(trouble.leads_to)
            words = [to.caption or "", to.licence, to.credit] if to else [trouble.caption, "", trouble.about]
            writer.writerow([name, *words])
