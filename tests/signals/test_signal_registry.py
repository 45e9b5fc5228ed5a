import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import curate.signals
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe import SignalUse
from curate.signals import registry
from curate.signals.base import Signal


def use(name, **options):
    return SignalUse(name=name, **options)


def made(name, gives=(), after=()):
    """A signal for the order's sake."""
    fields = tuple(SignalField(f, pa.float32()) for f in gives)
    body = {"name": name, "gives": fields, "after": tuple(after), "__call__": lambda self, batch: []}
    return type(name.title(), (Signal,), body)()


def test_every_file_of_the_folder_with_a_signal_is_found():
    folder = Path(curate.signals.__file__).parent
    files = {f.stem for f in folder.glob("*.py") if "Signal):" in f.read_text("utf-8")}
    files -= {"base", "caption", "captions", "labels", "model_signals", "registry", "texts"}
    assert len(files) >= 10
    assert registry.names() == sorted(files)  # each is named like its file


def test_finding_and_building_signals_imports_nothing_heavy():
    code = (
        "import sys; from curate.signals import registry; from curate.schema.recipe import SignalUse\n"
        "no_default = {'clip', 'caption_perplexity'}\n"
        "needed = {n: registry.get(n).Options.model_fields for n in registry.names() if n not in no_default}\n"
        "for name, fields in needed.items():\n"
        "    given = {o: 'some/model' for o, field in fields.items() if field.is_required()}\n"
        "    registry.build(SignalUse(name=name, **given)).version()\n"
        "heavy = 'torch transformers cv2 onnxruntime open_clip faster_whisper scipy PIL shapely'.split()\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_misspelt_signal_names_the_nearest():
    with pytest.raises(CurateError, match="unknown signal `sharpnes`; did you mean `sharpness`") as error:
        registry.get("sharpnes")
    assert "voice_activity" in error.value.hint


def test_caption_is_sent_to_its_own_section():
    with pytest.raises(CurateError, match="not to be listed under annotate"):
        registry.get("caption")


def test_a_signal_of_ones_own_by_its_path():
    assert registry.get("curate.signals.motion:Motion") is registry.get("motion")
    for path, reason in [("nowhere:X", "cannot be imported"), ("json:loads", "not a subclass"), ("json:X", "imported")]:
        with pytest.raises(CurateError, match=reason):
            registry.get(path)


def test_options_are_checked_with_the_allowed_names():
    assert registry.build(use("asr", min_speech=0.5)).options.min_speech == 0.5
    with pytest.raises(CurateError, match="unknown option `min_spech` of signal `asr`; did you mean `min_speech`") as e:
        registry.build(use("asr", min_spech=0.5))
    assert e.value.hint == "options of asr: model, language, min_speech, beam"
    with pytest.raises(CurateError, match=r"option `min_speech` of signal `asr`: .*less than or equal to 1, not 20"):
        registry.build(use("asr", min_speech=20))
    with pytest.raises(CurateError, match="unknown option `size` of signal `motion`") as e:
        registry.build(use("motion", size=1))
    assert e.value.hint == "motion has no options"


def test_signals_come_after_what_they_read_and_otherwise_stay_in_order():
    c = made("c", ["x"], ["y", "duration"])
    a, b, d = made("a", ["z"]), made("b", ["y"], ["z"]), made("d", ["w"])
    assert [s.name for s in registry.order([c, d, b, a])] == ["d", "a", "b", "c"]
    assert [s.name for s in registry.order([d, a, b, c])] == ["d", "a", "b", "c"]


def test_a_field_that_none_gives_names_the_signal_that_would():
    with pytest.raises(CurateError, match="`asr` needs the field `speech_ratio`") as error:
        registry.order([registry.build(use("asr"))])
    assert error.value.hint == "add the signal voice_activity"


def test_circles_and_double_names_and_fields_are_refused():
    with pytest.raises(CurateError, match="names must be unique; twice: sharpness") as error:
        registry.order([registry.build(use("sharpness")), registry.build(use("sharpness"))])
    assert "`of`" in error.value.hint
    with pytest.raises(CurateError, match="in a circle: a, b"):
        registry.order([made("a", ["x"], ["y"]), made("b", ["y"], ["x"])])
    with pytest.raises(CurateError, match="`a` and `b` both give the field `x`"):
        registry.order([made("a", ["x"]), made("b", ["x"])])
    with pytest.raises(CurateError, match="`probing` and `a` both give the field `width`"):
        registry.order([made("a", ["width"])])
