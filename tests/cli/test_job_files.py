"""The files of jobs/: right by the schemas of those who read them, and by our own command line."""

from __future__ import annotations

import copy
import gzip
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.testing import CliRunner

from curate.cli.main import app
from curate.schema.errors import CurateError
from curate.schema.package_data import data_folder
from curate.schema.recipe import Recipe

JOBS = data_folder("jobs")
ROOT = JOBS.parent
CRD = Path(__file__).parent / "data" / "kuberay-rayjob-v1.schema.json.gz"


def closed(schema: Any) -> Any:
    """An OpenAPI schema that refuses keys it does not name, as the API server does under `--validate=strict`."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: closed(value) for key, value in schema.items()}
    if isinstance(out.get("properties"), dict) and not out.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def problems(job: Any) -> list[str]:
    schema = closed(json.loads(gzip.decompress(CRD.read_bytes())))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(job)]


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    recipe, job = yaml.safe_load_all((JOBS / "rayjob.yaml").read_text())
    return recipe, job


def parsed(command: str) -> dict[str, Any]:
    """The options of a `curate` command line, parsed as our own command line does."""
    words = shlex.split(command)
    words = words[words.index("-m") + 2 :] if "-m" in words else words[1:]
    group: Any = typer.main.get_command(app)
    return dict(group.commands[words[0]].make_context(words[0], words[1:]).params)


def test_the_rayjob_is_what_kuberay_takes() -> None:
    assert problems(documents()[1]) == []


def wrong_key(job: Any) -> None:
    job["spec"]["shutDownAfterJobFinishes"] = True


def wrong_type(job: Any) -> None:
    job["spec"]["backoffLimit"] = "2"


def deep_wrong_key(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["envfrom"] = []


def number_for_a_quantity(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def no_name_of_a_group(job: Any) -> None:
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]


@pytest.mark.parametrize("spoil", [wrong_key, wrong_type, deep_wrong_key, number_for_a_quantity, no_name_of_a_group])
def test_a_mistake_in_the_rayjob_would_be_seen(spoil: Callable[[Any], None]) -> None:
    job = copy.deepcopy(documents()[1])
    spoil(job)
    assert problems(job)


def test_the_rayjob_runs_its_own_recipe() -> None:
    recipe, job = documents()
    spec = job["spec"]
    options = parsed(spec["entrypoint"])
    assert options["address"] == "auto"
    assert options["out"].startswith("s3://")
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [container] = head["containers"]
    [mount] = container["volumeMounts"]
    [volume] = head["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["configMap"]["name"] == recipe["metadata"]["name"]
    [(name, text)] = recipe["data"].items()
    assert options["recipe"] == f"{mount['mountPath']}/{name}"
    assert Recipe.model_validate(yaml.safe_load(text)).sources[0].path.startswith("s3://")


def test_the_rayjob_shuts_down_gives_every_pod_the_keys_and_holds_none() -> None:
    job = documents()[1]
    cluster = job["spec"]["rayClusterSpec"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) == 3
    for group in groups:
        [container] = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "curate-s3"}}]
        assert not [e for e in container["env"] if re.search("KEY|SECRET|TOKEN", e["name"])]
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    gpus = [g["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for g in groups]
    assert gpus == [None, None, "1"]


def test_versions_of_ray_agree() -> None:
    [pinned] = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert documents()[1]["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def cluster_errors(config: Any) -> list[str]:
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(config)]


def test_the_cluster_file_is_what_rays_launcher_takes() -> None:
    config = yaml.safe_load((JOBS / "cluster.yaml").read_text())
    assert cluster_errors(config) == []
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert config["max_workers"] == sum(t.get("max_workers", 0) for t in types.values())
    assert all(t.get("min_workers", 0) == t.get("max_workers", 0) for t in types.values())
    assert cluster_errors({**config, "setup_command": []})
    assert cluster_errors({**config, "max_workers": "5"})


def installs(text: str) -> list[list[str]]:
    """The `pip install`s of a file, without what differs on purpose: where pip is, quietness, index, editability."""
    found = []
    for line in re.findall(r"pip install ([^\n&]+)", text.replace("\\\n", " ")):
        line = re.sub(r"\$\{TORCH_INDEX:[^}]*\}", "", line)
        words = [w for w in shlex.split(line) if w not in ("--quiet", "-e")]
        if words[0] != "--upgrade":
            found.append(words)
    return found


@pytest.mark.parametrize("name", ["Dockerfile", "cluster.yaml"])
def test_nodes_are_installed_as_make_does(name: str) -> None:
    """Torch first, all under the same constraints, and what pins too much without its dependencies."""
    ours = installs((JOBS / name).read_text())
    made = installs((ROOT / "Makefile").read_text())
    assert made[-1] == ["--no-deps", "-r", "requirements-nodeps.txt"] == ours[-1]
    assert all(words[:2] == ["-c", "constraints.txt"] for words in (*made[:-1], *ours[:-1]))
    assert ours[0][2] == made[0][2] == "torch"
    extras = re.search(r"ARG EXTRAS=(.*)|\.\[(.*)\]", (JOBS / name).read_text())
    assert extras is not None
    assert set((extras[1] or extras[2]).split(",")) <= set(made[1][2][2:-1].split(","))


def test_the_dockerfile() -> None:
    text = (JOBS / "Dockerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= {
        "FROM",
        "ARG",
        "RUN",
        "COPY",
        "ENV",
        "WORKDIR",
        "USER",
        "ENTRYPOINT",
        "CMD",
    }
    for line in lines:
        if line.startswith("COPY"):
            for path in line.split()[1:-1]:
                assert (ROOT / path).exists(), line
    stages = [line.split() for line in lines if line.startswith("FROM")]
    names = {words[3] for words in stages if len(words) > 3}
    assert stages[-1] == ["FROM", "torch-${DEVICE}"]
    assert {"torch-cpu", "torch-gpu"} <= names
    for words in stages[1:-1]:
        assert words[1] in names
    last = lines[lines.index("FROM torch-${DEVICE}") :]
    [user] = [line for line in last if line.startswith("USER")]
    assert user.split()[1] not in ("root", "0")
    assert not [line for line in last[last.index(user) :] if line.startswith("RUN")]
    copied = {line.split()[-1] for line in last if line.startswith("COPY")}
    assert {"curate", "pipelines", "tokenizers", "schemas", "jobs", "demo"} <= copied, "what the wheel is made of"


def test_the_submit_script_is_one_of_our_commands() -> None:
    script = JOBS / "submit.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    [line] = [line for line in script.read_text().splitlines() if line.startswith("curate ")]
    options = parsed(line.replace("$recipe", "my.yaml").replace("$out", "s3://bucket/mine").replace(' "$@"', ""))
    assert options["recipe"] == "my.yaml"
    assert options["out"] == "s3://bucket/mine"


def test_each_file_is_explained() -> None:
    text = (JOBS / "README.md").read_text()
    for path in JOBS.iterdir():
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"]({path.name})" in text
    for command in re.findall(r"^    (curate (?:submit|status|stop|run) [^#\n]+)", text, re.MULTILINE):
        parsed(command.replace("--out ...", "--out /x"))


def test_the_table_of_pools_is_what_its_command_prints() -> None:
    text = (JOBS / "README.md").read_text()
    [command] = re.findall(r"^    (curate placement .+)$", text, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "curate.cli.main", *shlex.split(command)[1:]],
        capture_output=True,
        text=True,
        check=True,
    )
    table = [line for line in text.splitlines() if line.startswith(("| recipe     |", "| ---------- |"))]
    shown = text[text.index(table[0]) :].split("\n\n### ")[0]
    assert shown.split() == done.stdout.split(), f"paste what `{command}` prints into jobs/README.md"
    shipped = {path.stem for path in data_folder("pipelines").glob("*.yaml")}
    assert shipped == set(shlex.split(command)[2 : 2 + len(shipped)]), "every recipe that ships is in the table"


def test_a_cluster_that_is_made_up_has_no_address() -> None:
    done = CliRunner().invoke(app, ["placement", "quickstart", "--gpus", "1", "--address", "auto"])
    assert isinstance(done.exception, CurateError)
    assert "--address" in done.exception.message
    rows = CliRunner().invoke(app, ["placement", "quickstart", "--gpus", "1"]).stdout.splitlines()
    assert [row.split("|")[3].strip() for row in rows if row.startswith("| tokenize") and " cuda " in row]
