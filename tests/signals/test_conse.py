import numpy as np
import pytest
from signal_media import BIKES, CAPTIONED, SKIMAGE, SKLEARN, batch, hand_batch, jpeg, loaded, open_image

from curate.models.vectors import unit_vector
from curate.signals.conse import imagenet_labels


@pytest.fixture(scope="module")
def seen():
    """Results for the captioned images, in their order."""
    signal = loaded("conse")
    return signal(batch(signal, *(("image", p) for p in CAPTIONED), text=list(CAPTIONED.values())))


def tags(seen, name):
    return dict(zip((p.stem for p in CAPTIONED), (r["conse_tags"] for r in seen), strict=True))[name]


def test_known_images_get_their_class(seen):
    assert any("cat" in t for t in tags(seen, "chelsea"))
    assert tags(seen, "coffee") == ["espresso"]
    assert tags(seen, "rocket").count("missile") == 1  # ImageNet has two classes of that name: said once
    assert "palace" in tags(seen, "china")
    assert "tripod" in tags(seen, "camera")
    assert tags(seen, "flower") == ["daisy"]  # a dahlia is not among the 1000


def test_right_captions_score_above_swapped_ones(seen):
    signal, captions = loaded("conse"), list(CAPTIONED.values())
    swapped = signal(
        batch(signal, *(("image", p) for p in CAPTIONED), text=captions[1:] + captions[:1]),
    )
    right, wrong = ([r["conse_score"] for r in rs] for rs in (seen, swapped))
    assert all(r > w for r, w in zip(right, wrong, strict=True))
    assert np.mean(right) > np.mean(wrong) + 0.2


def test_without_a_text_there_is_no_score_but_there_are_tags_and_a_vector():
    signal = loaded("conse")
    for result in signal(batch(signal, *(("image", SKIMAGE / "coffee.png"),) * 2, text=[None, "  "])):
        assert result["conse_score"] is None
        assert result["conse_tags"] == ["espresso"]
        assert np.linalg.norm(result["conse_image"]) == pytest.approx(1, abs=1e-6)


def test_re_encoded_copies_are_nearer_than_unrelated_images_and_neighbouring_shots():
    signal = loaded("conse")
    paths = [SKIMAGE / n for n in ("astronaut.png", "chelsea.png", "coffee.png")] + [SKLEARN / "china.jpg"]
    small = [open_image(p).resize([int(0.6 * s) for s in open_image(p).size]) for p in paths]
    originals = signal(batch(signal, *(("image", p) for p in paths)))
    copies = signal(batch(signal, *(("image", jpeg(s, 30)) for s in small)))
    # bikes.mp4 cuts at frames 30, 76, 137, 187 and 242 of 25 a second
    shots = [(0, 1.16), (1.24, 3.0), (3.08, 5.44), (5.52, 7.44), (7.52, 9.64)]
    clips = signal(batch(signal, *(("video", BIKES, *s) for s in shots)))
    a, b, c = (np.stack([r["conse_image"] for r in rs]) for rs in (originals, copies, clips))
    unrelated, neighbours = (m @ m.T for m in (a, c))
    apart = max(unrelated[np.triu_indices(len(a), 1)].max(), neighbours[np.triu_indices(len(c), 1)].max())
    assert (a * b).sum(axis=1).min() > 0.75 > apart + 0.1


def test_a_blank_image_is_no_error():
    signal = loaded("conse")
    blank = np.zeros((1, 256, 256, 3), np.uint8)
    result = signal(hand_batch(["image"], {signal.needs[0]: [blank]}, ["nothing at all"]))[0]
    assert -1 <= result["conse_score"] <= 1
    assert np.isfinite(result["conse_image"]).all()


def test_labels_are_names_that_a_person_would_use():
    names, sentences = imagenet_labels()
    assert len(names) == len(sentences) == 1000
    assert names[0] == "tench"
    assert names[7] == "rooster"
    assert names[282] == "tiger cat"  # the package says "a cat having a striped coat"
    assert not [n for n in names if "(" in n or len(n.split()) > 4]
    assert sentences[0] == "tench, Tinca tinca"


def test_a_vector_without_direction_has_no_unit():
    assert unit_vector(np.zeros(4)) is None
    assert unit_vector(np.array([3.0, 4.0])) == pytest.approx([0.6, 0.8])
