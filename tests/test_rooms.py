"""Low rooms never import high ones, and modules never import each other in a circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import curate

PACKAGE = Path(curate.__file__).parent
ROOMS = (
    *("schema", "plugins", "storage", "helper", "media", "models", "sources", "signals", "decide"),
    *("tokenizers", "shards", "exports", "pipeline", "card", "training", "api", "browse", "cli"),
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Modules of this package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "curate":
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
            found |= deeper or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "curate"}
    return found - {name_of(path)}


def test_every_room_has_its_place() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert folders | files == set(ROOMS)


@pytest.mark.parametrize("package", [path for path in MODULES if path.name == "__init__.py"], ids=name_of)
def test_a_room_says_what_it_is_for_and_what_others_may_call(package: Path) -> None:
    tree = ast.parse(package.read_text())
    assert ast.get_docstring(tree)
    if len(name_of(package).split(".")) > 2:
        return  # a folder inside a room
    room = import_module(name_of(package))
    for name in room.__all__:
        assert hasattr(room, name) or import_module(f"{room.__name__}.{name}")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_none_above_it(room: str) -> None:
    above = set(ROOMS[ROOMS.index(room) + 1 :])
    wrong = {
        f"{name_of(path)} imports {module}"
        for path in MODULES
        if name_of(path).split(".")[1:2] == [room]
        for module in imports(path)
        if module.split(".")[1:2] and module.split(".")[1] in above
    }
    assert wrong == set()


def test_no_circles() -> None:
    graph = {name_of(path): imports(path) & NAMES for path in MODULES if path != PACKAGE / "__init__.py"}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_importing_the_package_is_cheap() -> None:
    """Workers import it thousands of times: nothing heavy may come along."""
    import subprocess
    import sys

    heavy = {"torch", "ray", "cv2", "av", "transformers"}
    script = f"import sys, curate, curate.cli.main; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
