"""Where the declarative folders are: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Folder = Literal["pipelines", "tokenizers", "schemas", "jobs", "demo"]


def data_folder(name: Folder) -> Path:
    """The folder `name` of the project; raises FileNotFoundError when the installation lacks it."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {name}/ is missing from this installation of curate-tokens")
