"""Nothing in the package runs code that came as data (law 11): read off the syntax of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import curate

PACKAGE = Path(curate.__file__).parent
LOADERS = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle")
OWN = {"decide/processes.py": {"pickle.loads", "pickle.load", "pickle.dumps", "pickle.dump", "pickle.HIGHEST_PROTOCOL"}}
"""Modules that read what this run's own processes have just written, in a folder of its own, and nothing else."""

UNSAFE_YAML = ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all", "Loader")


def faults(source: str) -> Iterator[str]:
    """What in a module could run code from data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LOADERS:
            yield f"from {node.module} import"
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            module, _, what = name.rpartition(".")
            if module in LOADERS and what != "UnpicklingError":  # what others raise may be caught
                yield name
            if module in ("yaml", "ruamel.yaml") and what in (*UNSAFE_YAML, "FullLoader", "UnsafeLoader"):
                yield name
            if name in ("os.system", "os.popen", "torch.hub.load"):
                yield name
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in ("eval", "exec", "compile", "__import__"):
                yield name
            if name == "torch.load" and said.get("weights_only") != "True":
                yield f"{name} without weights_only=True"
            if said.get("allow_pickle", "False") != "False":
                yield f"{name}(allow_pickle=...)"
            if said.get("trust_remote_code", "False") != "False" or said.get("shell", "False") != "False":
                yield f"{name}: trust_remote_code or shell"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_runs_no_code_from_data(path: Path) -> None:
    allowed = OWN.get(path.relative_to(PACKAGE).as_posix(), set())
    assert set(faults(path.read_text(encoding="utf-8"))) <= allowed


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle\npickle.loads(x)",
        "from pickle import loads",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.full_load(f)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "auto.from_pretrained(where, trust_remote_code=True)",
    ],
)
def test_the_check_sees_what_it_is_for(bad: str) -> None:
    assert list(faults(bad))
