"""Files of installed packages (models, labels), found without importing the package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from curate.schema.errors import CurateError


def package_file(module: str, relative: str, pip_name: str) -> Path:
    """The path of a file that ships inside an installed package.

    Args:
        module: top-level import name, e.g. `silero_vad`; it is not imported.
        relative: path below the package's folder, with `/`; empty for the folder itself.
        pip_name: what the user installs when it is missing.

    Raises:
        CurateError: the package is not installed, or this version of it lacks the file.
    """
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder, *relative.split("/")) if relative else Path(folder)
        if path.exists():
            return path
    if spec is None:
        raise CurateError(f"the package {pip_name} is not installed", f"pip install {pip_name}")
    raise CurateError(
        f"the package {pip_name} {package_version(pip_name)} has no file {relative}",
        f"install the version that curate was made for: pip install --force-reinstall {pip_name}",
    )


def package_version(pip_name: str) -> str:
    """Version of an installed distribution.

    Raises:
        CurateError: it is not installed.
    """
    try:
        return version(pip_name)
    except PackageNotFoundError as exc:
        raise CurateError(f"the package {pip_name} is not installed", f"pip install {pip_name}") from exc


def gpu_share(share: float, pip_name: str) -> float:
    """What a model takes of a GPU: `share` where the distribution is installed that brings what it needs there; else 0,
    so that it stays on CPUs. A name is looked for, since importing a library takes too long for a plan."""
    try:
        version(pip_name)
    except PackageNotFoundError:
        return 0.0
    return share


def fingerprint(module: str, relative: str, pip_name: str) -> str:
    """What names a packaged model cheaply: `NAME==VERSION/BYTES`; part of a signal's `version()`."""
    size = package_file(module, relative, pip_name).stat().st_size
    return f"{pip_name}=={package_version(pip_name)}/{size}"
