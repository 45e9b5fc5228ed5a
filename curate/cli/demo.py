"""The media of `demo: quickstart`: their code is data of the project, like recipes, and no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import AbstractContextManager
from types import ModuleType

from curate.schema.package_data import data_folder


def demo_package(name: str) -> ModuleType:
    """The Python package `demo/NAME` of a checkout, or of an installed wheel."""
    known = f"curate_demo_{name}"
    if known not in sys.modules:
        folder = data_folder("demo") / name
        spec = importlib.util.spec_from_file_location(
            known, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def demo_media(name: str) -> AbstractContextManager[dict[str, str]]:
    """Makes the media, serves their web part while the block runs, and gives the variables that the recipe names.

    Raises:
        CurateError: a package that carries media is not installed, or the media cannot be written.
    """
    media: AbstractContextManager[dict[str, str]] = demo_package(name).media()
    return media
