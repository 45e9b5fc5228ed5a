"""A build by the recipe of `examples/plugins`: every kind of plugin in one small run over real photographs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
CAPTIONS = {
    "astronaut.png": "a portrait of an astronaut in an orange suit",
    "chelsea.png": "a ginger cat looks at the camera",
    "rocket.jpg": None,
    "coffee.png": None,
    "coffee_small.jpg": None,
    "camera.png": "a man with a camera, in grey",
    "text.jpg": "no image at all",
    "gone.png": "nowhere to be found",
}
"""By uri what the table says. `coffee_small.jpg` is the same photograph, `camera.png` is grey."""


@dataclass(frozen=True)
class PluginBuild:
    """The build, and the means to run the command with the plugins on its path."""

    root: Path

    @property
    def build(self) -> Path:
        return self.root / "build"

    def curate(self, *args: object) -> str:
        """What `curate ARGS` prints."""
        env = os.environ | {"PHOTOS": str(self.root)}
        env["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), *filter(None, [env.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "curate.cli.main", *map(str, args)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def make(root: Path) -> None:
    """Photographs, a table that names them, and the build."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    for name in ("astronaut.png", "chelsea.png", "rocket.jpg", "coffee.png", "camera.png"):
        shutil.copy(Path(spec.origin).parent / "data" / name, root / name)
    coffee = Image.open(root / "coffee.png").convert("RGB")
    coffee.resize((300, 200), Image.Resampling.LANCZOS).save(root / "coffee_small.jpg", quality=60)
    (root / "text.jpg").write_text("this is not an image")
    with closing(sqlite3.connect(root / "photos.sqlite")) as database, database:
        database.execute("CREATE TABLE images (uri TEXT, caption TEXT)")
        database.executemany("INSERT INTO images VALUES (?, ?)", CAPTIONS.items())
    made = PluginBuild(root)
    made.curate("run", EXAMPLES / "plugins" / "recipe.yaml", "--out", made.build, "--no-dashboard", "--quiet")
