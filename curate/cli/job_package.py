"""What a job needs on the cluster: the recipe, files that were asked for, and this installation's code.

Ray uploads each folder under a name made of its content, so what the cluster has already is not sent again. Recipe and
code are two folders: a changed recipe does not send the code anew.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import get_args

import curate
from curate.cli import job_entry
from curate.schema.errors import CurateError
from curate.schema.package_data import Folder, data_folder
from curate.schema.recipe_file import RecipeFile
from curate.sources.paths import plain_parts, variables
from curate.storage import is_remote

MOST_BYTES = 64 << 20
"""The most that `--include` sends: Ray keeps it in the memory of the head node."""

JUNK = (".*", "__pycache__", "*.pyc", "*~", "venv", "build", "dist", "node_modules", "*.egg-info")
"""Names that are never sent: version control, environments, caches, builds, and all that begins with a dot."""


@dataclass(frozen=True)
class Package:
    """Folders to upload.

    Attributes:
        folder: becomes the working directory of the job: the recipe, and beside it what was included, and what the job
            begins with (`job_entry`).
        recipe: the recipe's path in `folder`.
        code: folders whose parents go on PYTHONPATH: the package and its metadata; none where the nodes' own
            installation is to run.
        bytes: size of both, before Ray compresses them.
        variables: names that the recipe takes from the environment of the nodes.
    """

    folder: Path
    recipe: str
    code: list[Path]
    bytes: int
    variables: list[str]


def pack(file: RecipeFile, include: Sequence[Path], code: bool, to: Path) -> Package:
    """Copy what a job needs below the empty folder `to`.

    Args:
        file: the recipe. `${NAME}` in it stays: the cluster's environment fills it in.
        include: files and folders in the recipe's folder, which keep their place beside the recipe.
        code: true if this installation of curate is sent.
        to: an empty folder.

    Raises:
        CurateError: the recipe names a relative path that is not included, what is included is not in the recipe's
            folder, or is too large.
    """
    folder = to / "job"
    folder.mkdir()
    recipe = folder / file.path.name
    shutil.copyfile(file.path, recipe)
    home = file.path.parent.resolve()
    _include(include, home, folder)
    shutil.copyfile(Path(job_entry.__file__), folder / job_entry.FILE)
    (folder / job_entry.NEEDS).write_text(json.dumps(job_entry.needs(code)), encoding="utf-8")
    _check_local(file, folder)
    text = file.path.read_text(encoding="utf-8")
    return Package(
        folder=folder,
        recipe=recipe.name,
        code=_code(to) if code else [],
        bytes=sum(p.stat().st_size for p in to.rglob("*") if p.is_file()),
        variables=[] if file.recipe.demo else sorted({*variables(text), *_keys(file)}),
    )


def _keys(file: RecipeFile) -> list[str]:
    """Variables that hold keys of endpoints."""
    return [use.calls.api_key_env for use in file.recipe.caption.uses if use.calls.api_key_env is not None]


def is_editable() -> bool:
    """True if this curate runs from a checkout, which an image of the nodes cannot have in this state."""
    url = distribution("curate-tokens").read_text("direct_url.json")
    return bool(json.loads(url or "{}").get("dir_info", {}).get("editable"))


def _junk(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in JUNK)


def _code(to: Path) -> list[Path]:
    """The package with its declarative folders, laid out as in an installed wheel, and what says its version."""
    code = to / "curate"

    def ignore(_: str, names: list[str]) -> set[str]:
        return {name for name in names if _junk(name)}

    shutil.copytree(Path(curate.__file__).parent, code, ignore=ignore)
    if not (code / "_data").is_dir():
        for name in get_args(Folder):
            shutil.copytree(data_folder(name), code / "_data" / name, ignore=ignore)
    installed = distribution("curate-tokens")
    about = to / f"curate_tokens-{installed.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: curate-tokens\nVersion: {installed.version}\n")
    return [code, about]


def _include(include: Sequence[Path], home: Path, folder: Path) -> None:
    left = MOST_BYTES
    for given in include:
        path = given.resolve()
        if not path.exists():
            raise CurateError(f"--include {given}: there is no such file or folder")
        if not path.is_relative_to(home) or path == home:
            raise CurateError(
                f"--include {given} does not lie in the recipe's folder {home}",
                "what is sent keeps its place relative to the recipe; put it beside the recipe",
            )
        for source in _files(path):
            left -= source.stat().st_size
            if left < 0:
                raise CurateError(
                    f"--include is more than {MOST_BYTES >> 20} MiB, which the head node would hold in memory",
                    "put media into a bucket, or on a disk that all nodes see, and name that in the recipe",
                )
            target = folder / source.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _files(path: Path) -> list[Path]:
    """A file itself, or what is worth sending of a folder. Links to folders are not followed."""
    if path.is_file():
        return [path]
    found = []
    for at, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not _junk(f))
        found += [Path(at, name) for name in sorted(names) if not _junk(name) and Path(at, name).is_file()]
    return found


def _check_local(file: RecipeFile, folder: Path) -> None:
    """A relative path starts in the recipe's folder, and on the cluster that holds only what was sent."""
    recipe = file.recipe
    for i, source in enumerate(recipe.sources):
        path = source.path
        relative = not is_remote(path) and not path.startswith(("/", "~", "${"))
        # a pattern is there when the part before it is
        fixed = Path(*plain_parts(Path(path).parts))
        if relative and not (folder / fixed).exists():
            raise file.error(
                ("sources", i, "path"),
                f"{path!r} is on this machine only: it starts in the recipe's folder",
                "name a bucket (s3://...) or an absolute path that all nodes see, or, where it is small, send it along "
                f"with --include {fixed}",
            )
    for i, stream in enumerate(recipe.tokenize.streams):
        if _is_here(stream.tokenizer) and not (folder / stream.tokenizer).exists():
            raise file.error(
                ("tokenize", "streams", i, "tokenizer"),
                f"the tokenizer {stream.tokenizer!r} is a folder of this machine",
                f"put it beside the recipe and send it along with --include {stream.tokenizer}",
            )
    for i, use in enumerate(recipe.caption.uses):
        if use.endpoint is None and _is_here(use.model) and not (folder / use.model).exists():
            raise file.error(
                ("caption", "captioner") if recipe.caption.captioner else ("caption", "captioners", i, "model"),
                f"the captioner {use.model!r} is a folder of this machine",
                "name its hub id, or an absolute path that all nodes see",
            )


def _is_here(name: str) -> bool:
    return not Path(name).is_absolute() and Path(name).is_dir()
