"""Train on a build with Ray Train, on two workers of this machine: `python examples/ray_train.py build/quickstart`.

`curate.mix` of one build never ends, so all ranks have equally many batches and none waits for another in vain. Where
it stands is a few integers, the same on all ranks: a checkpoint holds them beside the model. The same command goes on
from the last checkpoint, on another number of workers too.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from ray.train import Checkpoint, RunConfig, ScalingConfig, get_checkpoint, get_context, report
from ray.train.torch import TorchTrainer, prepare_model
from safetensors.torch import load_file, save_file
from small_model import Small, loss_of

import curate


def work(config):
    rank, world = get_context().get_world_rank(), get_context().get_world_size()
    tokens = curate.mix([config["build"]], view=curate.MaskedView(64, 64), batch=4, rank=rank, world=world)
    small, done = Small(), 0
    if (last := get_checkpoint()) is not None:
        with last.as_directory() as folder:
            small.load_state_dict(load_file(Path(folder, "model.safetensors")))
            place = json.loads(Path(folder, "place.json").read_text())
        tokens.resume(place["tokens"])
        done = place["step"]
    model = prepare_model(small)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for step, batch in zip(range(done + 1, config["steps"] + 1), tokens, strict=False):
        loss = loss_of(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0 or step == config["steps"]:
            with tempfile.TemporaryDirectory() as folder:
                save_file(small.state_dict(), Path(folder, "model.safetensors"))
                Path(folder, "place.json").write_text(json.dumps({"step": step, "tokens": tokens.state()}))
                metrics = {"step": step, "loss": loss.item(), "samples": tokens.state()["index"]}
                report(metrics, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


def fit(build, steps, workers, folder):
    run = RunConfig(name="small", storage_path=str(Path(folder).absolute()))
    scaling = ScalingConfig(num_workers=workers)
    return TorchTrainer(
        work, train_loop_config={"build": build, "steps": steps}, scaling_config=scaling, run_config=run
    ).fit()


if __name__ == "__main__":
    print(fit(str(Path(sys.argv[1]).absolute()), int(sys.argv[2]) if sys.argv[2:] else 100, 2, "runs/ray").metrics)
