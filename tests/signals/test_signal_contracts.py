"""What holds for every signal: laws 2, 5 and 6 in small."""

import numpy as np
import pytest
from signal_media import BIKES, MUSIC, SKIMAGE, SPEECH, batch, hand_batch, loaded

from curate.schema.fields import KINDS
from curate.schema.verdict import Failure
from curate.signals import registry

WEIGHTS = {
    "clip",
    "boxes",
    "classes",
    "depth",
    "faces",
    "masks",
    "poses",
    "caption_perplexity",
}  # their own tests say the same
EMBEDDED = [name for name in registry.names() if name not in WEIGHTS]
MEDIA = [
    ("image", SKIMAGE / "coffee.png"),
    ("video", SPEECH, 0, 3.0),
    ("audio", MUSIC, 0, 3.0),
    ("video", BIKES, 0, 1.1),
    ("image", SKIMAGE / "text.png"),
]
TEXT = ["a cup of coffee", None, "a song", "a bicycle", None]
COLUMNS = {
    "duration": [None, 3.0, 3.0, 1.1, None],
    "speech_ratio": [None, 0.6, 0.0, None, None],
    "caption": TEXT,
    "width": [600, 640, None, 640, 448],
    "height": [400, 360, None, 480, 172],
}


@pytest.fixture(scope="module")
def results():
    return {n: loaded(n)(batch(loaded(n), *MEDIA, text=TEXT, **COLUMNS)) for n in EMBEDDED}


def same(a, b):
    """Equal to the last bit."""
    return a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize("name", EMBEDDED)
def test_fields_are_complete_in_range_and_null_for_kinds_that_do_not_have_them(name, results):
    for (kind, *_), result in zip(MEDIA, results[name], strict=True):
        assert set(result) == {f.name for f in loaded(name).gives}
        for field in loaded(name).gives:
            value = result[field.name]
            assert kind in field.kinds or value is None
            assert value is None or not field.is_number or field.contains(value)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_sample_alone_gives_the_same_bits_as_among_neighbours(name, results):
    for i, among in enumerate(results[name]):
        columns = {k: [v[i]] for k, v in COLUMNS.items()}
        alone = loaded(name)(batch(loaded(name), MEDIA[i], text=[TEXT[i]], **columns))[0]
        assert all(same(alone[field], among[field]) for field in among), (name, MEDIA[i])


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_bad_member_fails_alone(name, results):
    signal = loaded(name)
    good = batch(signal, *MEDIA, text=TEXT, **COLUMNS)
    for column in good.views.values() or [good.columns["caption"]]:
        column[1] = object()
    got = signal(good)
    assert isinstance(got[1], Failure)
    assert got[1].stage == f"annotate:{name}"
    for i in (0, 2, 3, 4):
        assert all(same(got[i][field], results[name][i][field]) for field in results[name][i])


@pytest.mark.parametrize("name", EMBEDDED)
def test_declarations(name):
    signal = loaded(name)
    assert signal.name == name
    assert signal.version() == registry.get(name)().version()
    for field in signal.gives:
        assert field.about.endswith(".")
        assert set(field.kinds) <= set(KINDS)
        if field.is_number:
            assert field.unit
            assert field.range[0] is not None


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_empty_batch(name):
    signal = loaded(name)
    assert signal(hand_batch([], {v: [] for v in signal.needs}, **{name: [] for name in COLUMNS})) == []
