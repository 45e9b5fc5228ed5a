"""The trainers of `examples/` learn, make one stream of another, and go on after a kill as if there had been none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plugin_build import EXAMPLES, PluginBuild

import curate

STREAM = ("--image", "tok_colours@128", "--tokenizer", "plugins.tokenizer:MeanColours")


def test_the_loop_goes_on_where_its_checkpoint_was_written(
    plugin_build: PluginBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from training_loop import train

    def run(out: str, steps: int) -> list[float]:
        """Learn the mean of colours that are shown, from where an earlier run ended."""
        torch.manual_seed(0)
        model = torch.nn.Linear(16, 1)
        view = curate.MaskedView(16, 16, alpha={"tok_colours@128": 1})
        tokens = curate.stream(plugin_build.build, view=view, batch=1)

        def loss_of(batch: dict[str, Any]) -> torch.Tensor:
            ids = torch.from_numpy(batch["input_ids"]).float() / 256
            return (model(ids) - ids.mean()).square().mean()

        return train(model, tokens, loss_of, steps, tmp_path / out, every=3)

    whole = run("whole", 10)
    assert sum(whole[5:]) < sum(whole[:5])  # a step's loss is that of what was drawn for it, too
    assert [len(run("parts", steps)) for steps in (3, 8, 10)] == [3, 8, 10]
    assert run("parts", 10) == whole


def start(script: str, build: PluginBuild, out: Path, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, EXAMPLES / script, build.build, "--out", out, *more]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )


def finish(running: subprocess.Popen[str]) -> str:
    said, _ = running.communicate(timeout=400)
    assert running.returncode == 0, said
    return said


def losses(out: Path) -> list[float]:
    found: list[float] = json.loads((out / "losses.json").read_text())
    return found


@pytest.mark.long
@pytest.mark.parametrize("script", ["masked_any_to_any.py", "autoregressive.py"])
def test_a_trainer_that_is_killed_goes_on_with_the_same_losses(
    plugin_build: PluginBuild, tmp_path: Path, script: str
) -> None:
    more = ("--steps", 6, "--every", 2, *STREAM)
    whole = finish(start(script, plugin_build, tmp_path / "whole", *more))
    killed = start(script, plugin_build, tmp_path / "killed", *more)
    assert killed.stdout is not None
    next(line for line in killed.stdout if line.startswith("step 2,"))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = losses(tmp_path / "killed")
    assert 2 <= len(before) < 6
    again = finish(start(script, plugin_build, tmp_path / "killed", *more))
    assert f"goes on after step {len(before)}" in again
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")  # to the last bit
    assert np.isfinite(losses(tmp_path / "whole")).all()
    for out in (tmp_path / "killed", tmp_path / "whole"):
        assert Image.open(out / "loss.png").size[0] > 500
        assert Image.open(out / "image.png").size == (256, 128)
        caption, made = (out / "caption.txt").read_text().splitlines()[:2]
        assert caption.startswith("caption: ")
        assert made.startswith("model: ")
    assert whole.splitlines()[-3:-1] == again.splitlines()[-3:-1]


def test_accelerate_and_a_loader_with_a_worker(plugin_build: PluginBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from accelerate_train import main

    found, place = main(plugin_build.build, steps=12)
    assert found[-1] < found[0]
    assert (place["epoch"], place["index"]) == (0, 12 * 4)
    assert main(plugin_build.build, steps=12, workers=0) == (found, place)


@pytest.mark.long
def test_ray_train_goes_on_with_fewer_workers(plugin_build: PluginBuild, tmp_path: Path) -> None:
    """Two workers take 6 batches of 4 each; then one takes 4 more from where both stood."""
    for steps, workers, samples in ((6, 2, 48), (10, 1, 64)):
        call = f"ray_train.fit({str(plugin_build.build)!r}, {steps}, {workers}, {str(tmp_path)!r}).metrics"
        script = f"import json, ray_train; print(json.dumps({call}))"
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), *filter(None, sys.path)])}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert (said["step"], said["samples"]) == (steps, samples)
