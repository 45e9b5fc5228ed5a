import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from signal_media import SKIMAGE, batch, hand_batch, images, loaded

from curate.signals.ocr import union_area


def sign(*lines, size=48):
    """A white 640 x 360 image with lines of black text, and the share of it that their bounding boxes cover."""
    image = Image.new("RGB", (640, 360), "white")
    pen, font, area = ImageDraw.Draw(image), ImageFont.load_default(size), 0.0
    for k, line in enumerate(lines):
        at = (60, 60 + 100 * k)
        pen.text(at, line, "black", font)
        left, top, right, bottom = pen.textbbox(at, line, font)
        area += (right - left) * (bottom - top)
    return np.asarray(image), area / (640 * 360)


def test_a_rendered_sign_is_read_in_order_and_its_area_measured():
    signal = loaded("ocr")
    image, area = sign("OPEN EVERY DAY", "from nine to five")
    result = signal(images(signal, image))[0]
    assert result["ocr_text"].lower().replace(" ", "").split("\n") == ["openeveryday", "fromninetofive"]
    # the detector's boxes stand off the letters by a share of their height
    assert area < result["text_area"] < 1.8 * area


def test_photographs_hold_no_text_and_a_scanned_page_does():
    signal = loaded("ocr")
    media = [("image", SKIMAGE / n) for n in ("chelsea.png", "page.png")]
    cat, page = signal(batch(signal, *media))
    assert cat == {"text_area": 0.0, "ocr_text": ""}
    assert "segmentation" in page["ocr_text"]
    assert 0.2 < page["text_area"] < 0.6


def test_a_line_that_stays_on_screen_is_written_once_and_the_fullest_frame_counts():
    signal = loaded("ocr")
    one, area = sign("HELLO WORLD")
    two, _ = sign("HELLO WORLD", "GOOD BYE")
    clip = np.stack([one, two])
    result = signal(hand_batch(["video"], {signal.needs[0]: [clip]}))[0]
    assert result["ocr_text"].replace(" ", "").split("\n") == ["HELLOWORLD", "GOODBYE"]
    assert result["text_area"] > 1.3 * area


def test_blank_and_tiny_images():
    signal = loaded("ocr")
    blank, dot = np.zeros((360, 640, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    assert signal(images(signal, blank, dot)) == [{"text_area": 0.0, "ocr_text": ""}] * 2


def test_overlapping_boxes_count_once():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    shifted, apart = (square + np.array(by) for by in ([5, 0], [100, 100]))
    assert union_area([square, shifted, apart]) == pytest.approx(150 + 100)
    assert union_area([]) == 0
