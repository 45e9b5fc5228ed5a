"""Training media are files of packages, named by package so that anyone can fetch the same ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


def module_folder(module: str) -> Path | None:
    """Where a module is installed, found without running it; None when it is absent or has no file."""
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # a part of a dotted name is absent, or the name is empty
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


class PackageSource(BaseModel):
    """Files of one package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(description="the distribution's name on PyPI or in Debian")
    kind: Literal["debian", "python", "python-data", "folder"] = Field(
        description="`debian` (unpacked under a folder that the caller gives, `/` when installed), `python` (the "
        "folder of an importable module), `python-data` (under `sys.prefix`), `folder` (a path as it stands)"
    )
    folder: str = Field(description="for `python` it begins with the module's name")
    patterns: list[str] = Field(description="glob patterns under the folder; files are read in sorted order")
    exclude: list[str] = Field([], description="parts of relative paths that are left out")
    licence: str = Field("", description="of the files, as the package states it")

    def root(self, debian: Path) -> Path | None:
        """The folder on this machine, or None when the package is absent."""
        if self.kind == "debian":
            root = debian / self.folder
        elif self.kind == "python-data":
            root = Path(sys.prefix) / self.folder
        elif self.kind == "folder":
            root = Path(self.folder)
        else:
            module, _, rest = self.folder.partition("/")
            found = module_folder(module)
            if found is None:
                return None
            root = found / rest
        return root if root.is_dir() else None

    def names(self, root: Path) -> list[str]:
        """Relative paths of the files, sorted."""
        found = {p.relative_to(root).as_posix() for pattern in self.patterns for p in root.glob(pattern)}
        return sorted(n for n in found if not any(part in n for part in self.exclude))
