"""A name becomes a class in one place: built in, an entry point of a distribution that is installed, or a path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curate import plugins
from curate.pipeline.plan import make_plan
from curate.schema.errors import CurateError
from curate.schema.recipe import Caption
from curate.schema.recipe_file import RecipeFile
from curate.signals import registry
from curate.signals.base import Batch
from curate.signals.captions import CaptionerOptions, CaptionerSignal
from curate.signals.sharpness import Sharpness
from curate.tokenizers import zoo

CODE = '''
import numpy as np
import pyarrow as pa

from curate.media.requests import Frames
from curate.schema.fields import SignalField
from curate.exports import Export
from curate.shards.views import RawView
from curate.signals.base import Options, Signal
from curate.sources.folder import Folders
from curate.tokenizers.custom_card import custom_card


class RednessOptions(Options):
    scale: float = 1.0


class Redness(Signal):
    """Mean of the red channel."""

    name = "redness"
    needs = (Frames(size=224),)
    gives = (SignalField("redness", pa.float32(), "red 0-255", (0, 255), ("image", "video"), "Mean of red."),)
    Options = RednessOptions

    def one(self, sample):
        return self.options.scale * sample.view[..., 0].mean()


class Corners:
    """uint8 `(4, 4)` to its four corners."""

    def __init__(self):
        self.card = custom_card("corners", input="uint8 (4, 4)", vocabulary=256, grid=(2, 2), made_of="corners")

    def encode(self, items):
        return [item[::3, ::3] for item in items]

    def decode(self, ids, lengths=None):
        return [np.kron(one, np.ones((2, 2), np.uint8)) for one in ids]


class FromFolder(Corners):
    """The same, as a class that reads folders."""

    @classmethod
    def load(cls, folder):
        return cls()


class Sizes:
    """A captioner that says how large a picture is."""

    def load(self):
        self.word = "picture"

    def version(self):
        return "sizes-1"

    def __call__(self, frame):
        return f"a {self.word} of {frame.shape[1]} by {frame.shape[0]}"


class Nothing:
    """It can be called, and that is all."""

    def __call__(self, frame):
        return ""


class Tail(RawView):
    """A view."""


class Feed(Folders):
    """A source that lists otherwise."""

    def units(self, build):
        return reversed([*super().units(build)])


class Hashed:
    """A method that links nothing."""

    def links(self, material, spec):
        return []

    def similarity(self, a, b):
        return np.zeros(len(a))


class Plain:
    """Something of a kind whose classes are looked at elsewhere."""


class Names(Export):
    """An export that writes ids."""

    name, suffix = "names", ".txt"

    def shard(self, samples, file):
        return file.write_text("".join(sample.sample_id for sample in samples)) // 32
'''

GIVEN = {
    "signal": "redness = shades:Redness",
    "tokenizer": "corners = shades:Corners",
    "architecture": "corners-folder = shades:FromFolder [extra]",
    "captioner": "sizes = shades:Sizes",
    "encoder": "plain = shades:Plain",
    "view": "tail = shades:Tail",
    "source": "feed = shades:Feed",
    "dedup": "hashed = shades:Hashed",
    "detector": "plain = shades:Plain",
    "export": "names = shades:Names",
}


def install(site: Path, distribution: str, module: str, code: str, points: dict[str, str]) -> None:
    """What an installer leaves of a distribution of one module: the module, and what its metadata say."""
    (site / f"{module}.py").write_text(code)
    info = site / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("".join(f"[curate.{kind}s]\n{line}\n\n" for kind, line in points.items()))
    files = (f"{module}.py", f"{info.name}/METADATA", f"{info.name}/entry_points.txt", f"{info.name}/RECORD")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed in, on the path of this process."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for module in ("shades", "hues", "faulty"):  # of the test before, from another folder
        monkeypatch.delitem(sys.modules, module, raising=False)
    return folder


@pytest.fixture
def shades(site: Path) -> Path:
    """A distribution with a plugin of each kind."""
    install(site, "shades", "shades", CODE, GIVEN)
    return site


def refused(kind: str, name: str) -> CurateError:
    with pytest.raises(CurateError) as error:
        plugins.find(kind, name)
    return error.value


def told(where: Path, *command: str) -> str:
    """What a command of a fresh process prints."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(where), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_a_class_of_ones_own_is_found_by_its_entry_point_and_by_its_path(kind: str, shades: Path) -> None:
    name, _, value = GIVEN[kind].partition(" = ")
    assert name in plugins.names(kind)
    assert "shades" not in sys.modules, "names import nothing"
    found = plugins.find(kind, name)
    assert f"{found.__module__}:{found.__qualname__}" == value.partition(" ")[0]
    assert plugins.find(kind, value.partition(" ")[0]) is found


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_class_that_ships_is_what_its_kind_asks_for(kind: str) -> None:
    for name in plugins.builtin(kind):
        found = plugins.find(kind, name)
        assert kind != "signal" or found.name == name


def test_every_kind_has_its_names() -> None:
    assert {"sharpness", "clip", "asr", "edges", "faces"} <= set(plugins.names("signal"))
    assert {"image-fsq-64k", "text-bpe-8k"} <= set(plugins.names("tokenizer"))
    assert {"image-fsq", "cosmos-di"} <= set(plugins.names("architecture"))
    assert plugins.names("encoder") == ["efficientnet-lite0", "open_clip", "timm"]
    assert plugins.names("view") == ["masked", "raw", "sequence"]
    assert plugins.names("captioner") == ["transformers"]
    assert plugins.names("source") == ["folder", "table", "webdataset"]
    assert plugins.names("dedup") == ["cosine"]
    assert plugins.names("detector") == ["adaptive", "content"]
    assert {"energon", "litdata", "mds", "megatron", "parquet", "webdataset"} <= set(plugins.names("export"))


RECIPE = """\
name: shades
sources: [{kind: folder, name: here, path: media}]
annotate: [{name: redness, scale: 0.5}]
caption: {captioner: sizes}
decide: {rules: [{field: redness, min: 10}]}
tokenize: {streams: [{name: tok_corners, tokenizer: corners}]}
"""


def test_a_recipe_names_what_a_distribution_gives(shades: Path, tmp_path: Path) -> None:
    (tmp_path / "shades.yaml").write_text(RECIPE)
    plan = make_plan(RecipeFile.load(tmp_path / "shades.yaml"))
    signal = plan.signals[0]
    assert (signal.name, signal.options.scale) == ("redness", 0.5)  # type: ignore[attr-defined]
    frames = {signal.needs[0]: [np.full((1, 4, 4, 3), 90, np.uint8)]}
    assert signal(Batch(["a"], ["image"], [None], frames)) == [{"redness": 45.0}]
    assert plan.fields["redness"].range_text() == "0 to 255 red 0-255"
    (stream,) = plan.streams
    (ids,) = zoo.load(stream.tokenizer).encode([np.arange(16, dtype=np.uint8).reshape(4, 4)])
    assert ids.tolist() == [[0, 3], [12, 15]]


def test_a_recipe_that_misspells_one_names_the_nearest_and_the_line(shades: Path, tmp_path: Path) -> None:
    (tmp_path / "shades.yaml").write_text(RECIPE.replace("name: redness", "name: rednes"))
    with pytest.raises(CurateError, match=r"shades.yaml:3: unknown signal `rednes`; did you mean `redness`\?"):
        make_plan(RecipeFile.load(tmp_path / "shades.yaml"))
    (tmp_path / "shades.yaml").write_text(RECIPE.replace("kind: folder", "kind: floder"))
    with pytest.raises(CurateError, match=r"shades.yaml:2: unknown source `floder`; did you mean `folder`\?"):
        make_plan(RecipeFile.load(tmp_path / "shades.yaml"))
    (tmp_path / "shades.yaml").write_text(RECIPE.replace("tokenizer: corners", "tokenizer: corner"))
    with pytest.raises(CurateError, match=r"shades.yaml:6: no tokenizer 'corner'") as error:
        make_plan(RecipeFile.load(tmp_path / "shades.yaml"))
    assert "did you mean 'corners'?" in error.value.hint


def test_a_captioner_of_ones_own_says_what_it_sees(shades: Path) -> None:
    for name in ("sizes", "shades:Sizes"):
        (use,) = Caption(captioner=name).uses
        signal = CaptionerSignal(CaptionerOptions(use=use))
        signal.load()
        assert "sizes-1" in signal.version()
        images = {signal.needs[0]: [np.zeros((1, 4, 8, 3), np.uint8)]}
        (found,) = signal(Batch(["a"], ["image"], [None], images))
        assert isinstance(found, dict)
        assert found["captioner"] == "a picture of 8 by 4"
        assert json.loads(found["captioner_by"])["model"] == name


def test_the_command_lists_what_is_installed_beside_what_ships(shades: Path) -> None:
    signals = json.loads(told(shades, "-m", "curate.cli.main", "signals", "--json"))
    assert {"redness", "sharpness"} <= {row["name"] for row in signals}
    tokenizers = json.loads(told(shades, "-m", "curate.cli.main", "tokenizers", "list", "--json"))
    assert {"corners", "image-fsq-64k"} <= {row["name"] for row in tokenizers}


@pytest.mark.parametrize(
    ("kind", "wrong", "near"),
    [
        ("signal", "Sharpnes", "sharpness"),
        ("tokenizer", "image-fsq64k", "image-fsq-64k"),
        ("architecture", "llamagen", "llamagen-vq"),
        ("encoder", "tim", "timm"),
        ("view", "sequenc", "sequence"),
        ("captioner", "transformer", "transformers"),
        ("source", "tabel", "table"),
        ("export", "nmes", "names"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_and_with_all(kind: str, wrong: str, near: str, shades: Path) -> None:
    error = refused(kind, wrong)
    assert error.message.endswith(f" `{wrong}`; did you mean `{near}`?")
    assert f"there are: {', '.join(plugins.names(kind))}; or package.module:Class" in error.hint


def test_the_way_out_is_a_path() -> None:
    error = refused("export", "coco")
    assert error.message == "unknown export `coco`"
    assert error.hint.startswith("there are: ")
    assert error.hint.endswith(", webdataset, webdataset-media; or package.module:Class for one of your own")


BROKEN = {
    "raises = 1 / 0": "ZeroDivisionError: division by zero",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import what_is_not_there": "ModuleNotFoundError: No module named 'what_is_not_there'",
    "def": "SyntaxError",
    "other = 1": "AttributeError: module 'faulty' has no attribute 'Plugin'",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_class_that_cannot_be_imported_names_the_cause_and_the_culprit(code: str, site: Path) -> None:
    install(site, "faulty-shades", "faulty", code, {"signal": "faulty = faulty:Plugin"})
    error = refused("signal", "faulty")
    assert error.message.startswith(f"signal `faulty` cannot be imported: {BROKEN[code]}")
    assert "`faulty:Plugin` of the distribution faulty-shades 1.2: mend or uninstall that" in error.hint
    assert "where curate runs, on every worker" in refused("signal", "faulty:Plugin").hint
    assert plugins.find("signal", "sharpness") is Sharpness, "it takes no other along"


@pytest.mark.parametrize("path", ["nowhere:X", ":X", "json:", "json:no_such", ".json:X", "a:b:c"])
def test_a_path_that_leads_nowhere_is_one_sentence(path: str) -> None:
    for kind in ("signal", "view", "export"):
        assert refused(kind, path).message.startswith(f"{kind} `{path}` cannot be imported: ")


def test_a_file_with_a_colon_in_its_path_is_no_class() -> None:
    assert refused("signal", "some/where:X").message == "unknown signal `some/where:X`"


def test_what_is_not_of_the_kind_is_refused(shades: Path) -> None:
    error = refused("signal", "shades:Plain")
    assert error.message == "`shades:Plain` is not a subclass of curate.signals.base.Signal"
    with pytest.raises(CurateError, match="is no signal: it has neither `one` nor `__call__`"):
        registry.get("curate.signals.base:Signal")
    assert refused("captioner", "shades:Plain").message.endswith("is no captioner: it has no load, version, __call__")
    assert refused("captioner", "shades:Nothing").message.endswith("it has no load, version")
    assert refused("tokenizer", "shades:Sizes").message.endswith("is no tokenizer: it has no encode, decode")
    assert refused("view", "shades:Corners").message.endswith("is no view: it has no bind")
    assert refused("source", "shades:Plain").message.endswith("is not a subclass of curate.sources.base.Source")
    assert refused("view", "json:loads").hint == "see curate.shards.views.View"


def test_a_view_may_be_an_object_that_is_set_up_already(site: Path) -> None:
    (site / "my_views.py").write_text("from curate.shards.views import RawView\nCAPTIONS = RawView(['caption'])\n")
    assert plugins.find("view", "my_views:CAPTIONS").only == ["caption"]


def test_a_name_that_two_distributions_give_is_refused_until_one_is_chosen(shades: Path) -> None:
    install(shades, "hues", "hues", CODE, {"signal": "redness = hues:Redness"})
    error = refused("signal", "redness")
    who = "the distribution hues 1.2 and by the distribution shades 1.2"
    assert error.message == f"signal `redness` is given twice: by {who}"
    assert "name the class: hues:Redness, shades:Redness" in error.hint
    assert plugins.names("signal").count("redness") == 1
    assert registry.get("hues:Redness").name == "redness"


def test_two_distributions_that_give_the_same_class_do_not_quarrel(site: Path) -> None:
    install(site, "shades", "shades", CODE, {"signal": "redness = shades:Redness"})
    install(site, "shades-all", "unused", "", {"signal": "redness = shades:Redness"})
    assert plugins.find("signal", "redness").name == "redness"


def test_a_name_of_what_ships_is_not_taken_over(site: Path) -> None:
    install(
        site,
        "shades",
        "shades",
        CODE,
        {"signal": "sharpness = shades:Redness", "tokenizer": "image-fsq-64k = shades:Corners"},
    )
    error = refused("signal", "sharpness")
    assert error.message == "signal `sharpness` is given twice: by curate itself and by the distribution shades 1.2"
    assert "curate.signals.sharpness:Sharpness" in error.hint
    with pytest.raises(CurateError, match="tokenizer `image-fsq-64k` is given twice"):
        zoo.load("image-fsq-64k")
    assert registry.get("motion").name == "motion"


def test_an_entry_point_is_called_what_its_class_and_card_say(site: Path) -> None:
    install(
        site, "shades", "shades", CODE, {"signal": "crimson = shades:Redness", "tokenizer": "edges = shades:Corners"}
    )
    with pytest.raises(CurateError, match="entry point `crimson` calls itself `redness`"):
        registry.get("crimson")
    with pytest.raises(CurateError, match="entry point `edges` is called `corners` on its card"):
        zoo.card("edges")


def test_a_class_in_a_file_of_a_room_is_all_it_takes(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = site / "pantry"
    room.mkdir()
    (room / "__init__.py").write_text("raise ImportError('names import nothing')")
    (room / "base.py").write_text("class Sauce:\n    name: str\n")
    (room / "red.py").write_text("class Red(Sauce):\n    name = 'red'\n\nclass Mild(Red):\n    heat = 1\n")
    (room / "green.py").write_text("class Green(base.Sauce, Mixin):\n    kind: ClassVar[str] = 'verde'\n")
    (room / "words.py").write_text('"""For example:\n\nclass Blue(Sauce):\n    name = "blue"\n"""\n')
    monkeypatch.setitem(plugins.KINDS, "sauce", plugins.Kind("pantry.base:Sauce", "pantry"))
    assert plugins.builtin("sauce") == {"red": "pantry.red:Red", "verde": "pantry.green:Green"}


def test_finding_one_class_imports_nothing_heavy() -> None:
    code = (
        "import sys; from curate import plugins; plugins.names('view'), plugins.names('tokenizer')\n"
        "before = [m for m in sys.modules if m.startswith('curate.signals')]\n"
        "plugins.find('signal', 'sharpness')\n"
        "heavy = 'torch faiss ray transformers cv2 onnxruntime scipy duckdb'.split()\n"
        "print(before, [m for m in heavy if m in sys.modules])"
    )
    assert told(Path(), "-c", code).strip() == "[] []"
