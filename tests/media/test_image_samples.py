"""What stored samples mean: bit depths, photometric interpretation, transparency, canvases, kinds of JPEG."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from image_files import bmp, chunk, first, flat, photo, pixels, png, saved, tiff
from PIL import Image, TiffImagePlugin

from curate.media.images import decode_image
from curate.media.probe import probe
from curate.schema.errors import MediaError

TWO = {256: (2,), 257: (1,)}
ONE = {256: (1,), 257: (1,)}


def greys(data: bytes) -> list[int]:
    found = pixels(data)
    assert all(len(set(pixel)) == 1 for pixel in found)
    return [pixel[0] for pixel in found]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8], ids=["raw", "deflate"])
@pytest.mark.parametrize(("photometric", "right"), [(0, [239, 15]), (1, [16, 240])], ids=["0 is white", "0 is black"])
@pytest.mark.parametrize("bits", [8, 16])
def test_greys_of_a_tiff(bits: int, photometric: int, right: list[int], compression: int, order: str) -> None:
    raw = struct.pack(f"{order}2{'H' if bits == 16 else 'B'}", *(v << (bits - 8) for v in (16, 240)))
    tags = TWO | {258: (bits,), 262: (photometric,), 259: (compression,)}
    assert greys(tiff(tags, zlib.compress(raw) if compression == 8 else raw, order)) == right


@pytest.mark.parametrize(("bits", "raw"), [(1, b"\x40"), (2, b"\x30"), (4, b"\x0f"), (12, b"\x00\x0f\xff")])
def test_few_and_twelve_bits_of_a_tiff_reach_white(bits: int, raw: bytes) -> None:
    """12 bits: 4095 is white, not 65535."""
    assert greys(tiff(TWO | {258: (bits,), 262: (1,)}, raw)) == [0, 255]
    assert greys(tiff(TWO | {258: (bits,), 262: (0,)}, raw)) == [255, 0]


def test_fill_order_of_a_tiff() -> None:
    assert greys(tiff({256: (8,), 257: (1,), 258: (1,), 262: (1,), 266: (2,)}, b"\x03")) == [255] * 2 + [0] * 6


@pytest.mark.parametrize(
    ("bits", "kind", "reason"),
    [
        (8, 2, "signed samples have no stated white"),
        (16, 2, "signed samples have no stated white"),
        (32, 1, "32-bit samples have no stated white"),
        (32, 3, "32-bit samples have no stated white"),
    ],
    ids=["signed 8", "signed 16", "32", "float"],
)
def test_samples_of_a_tiff_without_a_white(bits: int, kind: int, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        decode_image(tiff(TWO | {258: (bits,), 262: (1,), 339: (kind,)}, bytes(bits // 4)))


RGBA = bytes([100, 50, 25, 128])
FOUR = ONE | {258: (8,) * 4, 262: (2,), 277: (4,)}
OVER_WHITE = [177, 152, 140]


@pytest.mark.parametrize(
    ("tags", "raw", "right"),
    [
        (FOUR | {338: (0,)}, RGBA, [100, 50, 25]),
        (FOUR | {338: (1,)}, RGBA, [227, 177, 152]),
        (FOUR | {338: (2,)}, RGBA, OVER_WHITE),
        (FOUR, RGBA, OVER_WHITE),
        (FOUR, bytes([100, 50, 25, 0]), [100, 50, 25]),
        (FOUR | {338: (2,)}, bytes([100, 50, 25, 0]), [255] * 3),
        (ONE | {258: (8, 8), 262: (1,), 277: (2,), 338: (1,)}, bytes([100, 128]), [227] * 3),
        (ONE | {258: (8, 8), 262: (1,), 277: (2,), 338: (2,)}, bytes([100, 128]), [177] * 3),
        (ONE | {258: (16,) * 3, 262: (2,), 277: (3,)}, struct.pack("<3H", 0x1234, 0x5678, 0x9ABC), [0x12, 0x56, 0x9A]),
        (ONE | {258: (8,) * 4, 262: (5,), 277: (4,)}, bytes([255, 0, 0, 0]), [0, 255, 255]),
        (ONE | {258: (16,) * 4, 262: (5,), 277: (4,)}, struct.pack("<4H", 65535, 0, 0, 0), [0, 255, 255]),
        (ONE | {258: (8,) * 3, 262: (6,), 277: (3,), 530: (1, 1)}, bytes([100, 128, 200]), [200, 48, 100]),
    ],
    ids=[
        "fourth sample of no meaning",
        "associated alpha",
        "alpha",
        "alpha that is not stated",
        "alpha that is not stated, all 0",
        "alpha, all 0",
        "grey with associated alpha",
        "grey with alpha",
        "16-bit RGB",
        "CMYK",
        "16-bit CMYK",
        "YCbCr",
    ],
)
def test_samples_of_a_tiff(tags: dict[int, tuple[int, ...]], raw: bytes, right: list[int]) -> None:
    assert np.abs(np.subtract(first(tiff(tags, raw)), right)).max() <= 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [({}, "subsampled"), ({530: (1, 1), 532: (16, 235, 128, 240, 128, 240)}, "its own coefficients")],
    ids=["subsampled", "narrow range"],
)
def test_raw_ycbcr_that_pillow_would_misread(more: dict[int, tuple[int, ...]], reason: str) -> None:
    tags = {256: (2,), 257: (2,), 258: (8,) * 3, 262: (6,), 277: (3,)} | more
    with pytest.raises(MediaError, match=reason):
        decode_image(tiff(tags, bytes(200)))


def test_planes_and_big_tiff() -> None:
    planes = ONE | {258: (8,) * 3, 262: (2,), 277: (3,), 284: (2,), 273: (8, 9, 10), 279: (1, 1, 1)}
    assert first(tiff(planes, bytes([1, 2, 3]), typed={273: "I"})) == [1, 2, 3]
    assert decode_image(saved(photo(), "TIFF", big_tiff=True)).tobytes() == photo().tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits_and_a_single_plane(order: str) -> None:
    """Planes that are not compressed; of one plane all else counts as where PlanarConfiguration is 1."""
    raw = struct.pack(f"{order}6H", 0x1234, 0x1111, 0x5678, 0x2222, 0x9ABC, 0x3333)
    planes = TWO | {258: (16,) * 3, 262: (2,), 277: (3,), 284: (2,), 273: (8, 12, 16), 279: (4,) * 3}
    assert pixels(tiff(planes, raw, order, {273: "I"})) == [[0x12, 0x56, 0x9A], [0x11, 0x22, 0x33]]
    for bits, single in ((16, struct.pack(f"{order}2H", 0x1000, 0xF000)), (8, b"\x10\xf0"), (1, b"\x40")):
        for photometric in (0, 1):
            tags = TWO | {258: (bits,), 262: (photometric,)}
            assert pixels(tiff(tags | {284: (2,)}, single, order)) == pixels(tiff(tags, single, order))


def test_planes_that_pillow_would_misread() -> None:
    inks = ONE | {258: (16,) * 4, 262: (5,), 277: (4,), 284: (2,), 273: (8, 10, 12, 14), 279: (2,) * 4}
    reversed_bits = ONE | {258: (8,) * 3, 262: (2,), 266: (2,), 277: (3,), 284: (2,), 273: (8, 9, 10), 279: (1,) * 3}
    for tags in (inks, reversed_bits):
        with pytest.raises(MediaError, match=r"raw mode|planes that are not"):
            decode_image(tiff(tags, bytes(8), typed={273: "I"}))


def pages(*images: tuple[Image.Image, int]) -> bytes:
    """A TIFF of pages with a NewSubfileType each."""
    out = BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(out, new=True) as writer:
        for image, kind in images:
            image.save(writer, "TIFF", tiffinfo={254: kind})
            writer.newFrame()
    return out.getvalue()


def test_the_first_page_of_a_tiff_that_is_no_thumbnail() -> None:
    thumbnail, page = flat((9, 9, 9), (12, 8)), photo()
    assert decode_image(pages((page, 0), (thumbnail, 1))).size == page.size
    behind = pages((thumbnail, 1), (page, 0), (thumbnail, 0))
    assert decode_image(behind).tobytes() == page.tobytes()
    assert (probe(behind).width, probe(behind).height) == page.size
    with pytest.raises(MediaError, match="thumbnail only"):
        decode_image(pages((thumbnail, 1), (thumbnail, 1)))


def trns(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


WHITE = [255] * 3


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (png(b"\5\6", 8, 0, 2, trns(5)), [WHITE, [6] * 3]),
        (png(b"\x1b", 2, 0, 4, trns(1)), [[0] * 3, WHITE, [170] * 3, WHITE]),
        (png(b"\x12\x34", 4, 0, 4, trns(3)), [[17] * 3, [34] * 3, WHITE, [68] * 3]),
        (png(struct.pack(">2H", 0x1234, 0x1235), 16, 0, 2, trns(0x1234)), [WHITE, [18] * 3]),
        (png(bytes([5, 6, 7, 5, 6, 8]), 8, 2, 2, trns(5, 6, 7)), [WHITE, [5, 6, 8]]),
        (
            png(
                struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0x5678, 0x9ABD),
                16,
                2,
                2,
                trns(0x1234, 0x5678, 0x9ABC),
            ),
            [WHITE, [0x12, 0x56, 0x9A]],
        ),
        (png(b"\0\1", 8, 3, 2, chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6])) + chunk(b"tRNS", b"\0")), [WHITE, [4, 5, 6]]),
        (png(struct.pack(">4H", 0x8000, 0xFFFF, 0x8000, 0), 16, 4, 2), [[128] * 3, WHITE]),
    ],
    ids=[
        "grey",
        "grey of 2 bits",
        "grey of 4 bits",
        "grey of 16 bits",
        "RGB",
        "RGB of 16 bits",
        "palette",
        "alpha of 16 bits",
    ],
)
def test_transparent_samples_of_a_png(data: bytes, right: list[list[int]]) -> None:
    """All bits of a sample count (PNG, tRNS)."""
    assert pixels(data) == right


def test_interlaced_png() -> None:
    """Adam7 of 2 x 1 pixels: the first pass has the one, the sixth the other."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\x0a\0\xc8")) + chunk(b"IEND", b"")
    assert greys(data) == [10, 200]


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (b"P5\n2 1\n65535\n" + struct.pack(">2H", 0x1234, 0x8000), [18, 128]),
        (b"P5\n2 1\n4095\n" + struct.pack(">2H", 4095, 0), [255, 0]),
        (b"P5 2 1 15\n" + bytes([15, 7]), [255, 119]),
        (b"P2\n# made by hand\n2 1\n1000\n1000 500\n", [255, 128]),
        (b"P5\n# made by hand\n2 1\n255\n\x07\x08", [7, 8]),
        (b"P4\n2 1\n\x40", [255, 0]),
        (b"P1\n2 1\n1 0\n", [0, 255]),
    ],
    ids=["16 bits", "12 bits", "4 bits", "text of 10 bits", "comment", "bits", "bits as text"],
)
def test_pnm_by_its_maximum(data: bytes, right: list[int]) -> None:
    assert np.abs(np.subtract(greys(data), right)).max() <= 1


@pytest.mark.parametrize(
    "head", [b"P7\nWIDTH 1\n", b"PF\n1 1\n-1.0\n", b"Pf\n1 1\n-1.0\n"], ids=["PAM", "PFM", "PFM grey"]
)
def test_pam_and_pfm_are_refused(head: bytes) -> None:
    with pytest.raises(MediaError, match=r"PAM or PFM|no stated white"):
        decode_image(head + bytes(40))


def dib(
    bits: int, compression: int, masks: tuple[int, ...] = (), size: int = 40, height: int = 1
) -> tuple[bytes, bytes]:
    head = struct.pack("<IiiHHIIiiII", size, 1, height, 1, bits, compression, 0, 0, 0, 0, 0)
    numbers = struct.pack(f"<{len(masks)}I", *masks)
    return ((head + numbers).ljust(size, b"\0"), b"") if size > 40 else (head, numbers)


ARGB = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
RLE = struct.pack("<IiiHHIIiiII", 40, 3, 1, 1, 8, 1, 0, 0, 0, 2, 0)


@pytest.mark.parametrize(
    ("header", "raw", "right"),
    [
        (dib(16, 0), b"\0\x7c\0\0", [255, 0, 0]),
        (dib(16, 3, (0xF800, 0x7E0, 0x1F)), b"\x1f\xf8\0\0", [255, 0, 255]),
        (dib(32, 0), bytes([1, 2, 3, 0]), [3, 2, 1]),
        (dib(32, 3, ARGB, 56), bytes([0, 0, 200, 128]), [227, 127, 127]),
        (dib(32, 3, ARGB, 56), bytes([1, 2, 3, 0]), [3, 2, 1]),
        (dib(24, 0, height=-1), bytes([1, 2, 3, 0]), [3, 2, 1]),
        ((struct.pack("<IHHHH", 12, 1, 1, 1, 24), b""), bytes([1, 2, 3, 0]), [3, 2, 1]),
        ((RLE, bytes([9, 9, 9, 0, 30, 20, 10, 0])), b"\1\1\0\2\1\0\1\1\0\1", [10, 20, 30]),
    ],
    ids=["555", "565", "32 bits", "alpha", "alpha, all 0", "top down", "OS/2", "run lengths"],
)
def test_kinds_of_bmp(header: tuple[bytes, bytes], raw: bytes, right: list[int]) -> None:
    assert np.abs(np.subtract(first(bmp(header[0], raw, header[1])), right)).max() <= 1


@pytest.mark.parametrize(
    ("header", "raw", "reason"),
    [
        (dib(16, 3, (0xF00, 0xF0, 0xF)), bytes(4), "bitfields layout"),
        (dib(24, 4), bytes(4), "compression"),
        ((RLE, bytes(8)), b"\1\1", "not enough image data"),
    ],
    ids=["444", "JPEG inside", "runs that end too early"],
)
def test_kinds_of_bmp_that_are_refused(header: tuple[bytes, bytes], raw: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=f"BMP image.*{reason}"):
        decode_image(bmp(header[0], raw, header[1]))


def gif(canvas: tuple[int, int], frame: tuple[int, int], at: tuple[int, int], control: bytes = b"") -> bytes:
    """Red pixels in a frame on a canvas whose background is blue."""
    codes = [bit for _ in range(frame[0] * frame[1]) for bit in (0, 0, 1, 1, 0, 0)] + [1, 0, 1]  # clear, 1; end
    packed = np.packbits(codes, bitorder="little").tobytes()
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes([0, 0, 255, 255, 0, 0])
    image = b"," + struct.pack("<HHHHB", *at, *frame, 0) + b"\2" + bytes([len(packed)]) + packed
    return head + control + image + b"\0;"


RED = [255, 0, 0]


def test_a_gif_whose_frame_is_smaller_than_its_canvas() -> None:
    """The rest is transparent, as in browsers, whatever the background is."""
    assert pixels(gif((3, 1), (1, 1), (1, 0))) == [WHITE, RED, WHITE]
    assert pixels(gif((3, 1), (1, 1), (1, 0), b"!\xf9\4\1\0\0\0\0")) == [WHITE, RED, WHITE]
    assert pixels(gif((2, 1), (2, 1), (0, 0))) == [RED, RED]
    assert pixels(gif((2, 1), (2, 1), (0, 0), b"!\xf9\4\1\0\0\1\0")) == [WHITE, WHITE]
    assert probe(gif((1, 1), (2, 1), (0, 0))).width == decode_image(gif((1, 1), (2, 1), (0, 0))).width == 2


@pytest.mark.parametrize("alpha", [0, 16], ids=["no alpha flag", "alpha flag"])
def test_a_webp_whose_first_frame_is_smaller_than_its_canvas(alpha: int) -> None:
    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    image = saved(flat((255, 0, 0), (4, 4)), "WEBP", lossless=True)[12:]
    frame = bytes([1, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0, 0, 10, 0, 0, 0]) + image
    body = part(b"VP8X", bytes([2 | alpha, 0, 0, 0, 7, 0, 0, 7, 0, 0])) + part(b"ANIM", bytes([0, 0, 255, 255, 0, 0]))
    body += part(b"ANMF", frame) * 2
    row = pixels(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)[:8]
    assert row == [WHITE] * 2 + [RED] * 4 + [WHITE] * 2


def test_which_image_of_several_is_read() -> None:
    """Of an APNG the image that readers of plain PNG show, even where the animation does not begin with it."""
    for kind in ("PNG", "GIF", "WEBP", "MPO", "TIFF"):
        frames = [flat((60 * i, 0, 0)) for i in (1, 2, 3)]
        data = saved(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert np.abs(np.subtract(first(data), [60, 0, 0])).max() <= 2
        assert probe(data).kind == "image"
    assert first(saved(frames[0], save_all=True, append_images=frames[1:], default_image=True)) == [60, 0, 0]


def test_premultiplied_alpha() -> None:
    pixel: dict[str, Any] = {"quality": 100, "subsampling": "4:4:4"}
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 128))
    straight = first(saved(image, "AVIF", **pixel))
    assert np.abs(np.subtract(straight, [227, 177, 152])).max() <= 2
    assert np.abs(np.subtract(first(saved(image, "AVIF", alpha_premultiplied=True, **pixel)), straight)).max() <= 2


def test_premultiplied_alpha_of_jpeg_2000() -> None:
    """The channel definition's type 2 (ISO/IEC 15444-1, I.5.3.6)."""
    data = saved(Image.new("RGBA", (64, 64), (100, 50, 25, 128)), "JPEG2000")
    at = data.index(b"cdef") + 4
    alpha = next(i for i in range(at + 2, at + 26, 6) if data[i + 2 : i + 4] == b"\0\1")
    assert first(data) == OVER_WHITE
    stored = data[: alpha + 3] + b"\2" + data[alpha + 4 :]
    assert np.abs(np.subtract(first(stored), [227, 177, 152])).max() <= 1


@pytest.mark.parametrize(
    ("mode", "value", "right"), [("L", 128, [128] * 3), ("LA", (100, 128), [177] * 3), ("I;16", 0x8034, [128] * 3)]
)
def test_kinds_of_jpeg_2000(mode: str, value: Any, right: list[int]) -> None:
    assert first(saved(Image.new(mode, (64, 64), value), "JPEG2000")) == right
    assert first(saved(Image.new(mode, (64, 64), value), "JPEG2000", no_jp2=True)) == right


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


def test_colour_transforms_of_a_jpeg() -> None:
    """The Adobe marker says whether three channels are RGB (0) or YCbCr (1); component names may too."""
    data = saved(flat((200, 100, 50), (16, 16)), "JPEG", quality=100)
    size = int.from_bytes(data[4:6], "big")
    bare = data[:2] + data[4 + size :]  # without the JFIF marker, which says YCbCr
    as_stored = Image.open(BytesIO(data))
    as_stored.draft("YCbCr", as_stored.size)
    assert first(bare[:2] + ADOBE + b"\1" + bare[2:]) == first(data)
    assert first(bare[:2] + ADOBE + b"\0" + bare[2:]) == list(as_stored.getpixel((0, 0)))  # type: ignore[arg-type]
    assert first(saved(flat((200, 100, 50), (16, 16)), "JPEG", quality=100, keep_rgb=True)) == [200, 100, 50]


def test_cmyk_jpeg_is_inverted_with_and_without_the_adobe_marker() -> None:
    """As browsers do: those who write it follow Photoshop."""
    data = saved(Image.new("CMYK", (16, 16), (10, 200, 30, 40)), "JPEG", quality=100)
    at = data.index(b"Adobe") - 4
    bare = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert first(bare) == first(data)
    assert np.abs(np.subtract(first(data), [207, 46, 190])).max() <= 3


def test_jpegs_of_more_bits_are_refused() -> None:
    data = saved(photo(), "JPEG")
    at = data.index(b"\xff\xc0") + 4
    with pytest.raises(MediaError, match=r"^a\.jpg is a JPEG image .* of a kind that is not read .*12-bit"):
        probe(data[:at] + b"\x0c" + data[at + 1 :], "a.jpg")


def test_decoders_of_jpeg_agree() -> None:
    """Pixels are those of Pillow, bit by bit."""
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_blocks": 3}):
        data = saved(photo((201, 153)), "JPEG", **options)
        assert decode_image(data).tobytes() == Image.open(BytesIO(data)).tobytes()
    grey = saved(photo().convert("L"), "JPEG")
    assert decode_image(grey).tobytes() == Image.open(BytesIO(grey)).convert("RGB").tobytes()


def test_avif_whose_major_brand_is_that_of_heif() -> None:
    data = saved(photo(), "AVIF")
    assert probe(data[:8] + b"mif1" + data[12:]).codec == "avif"
    with pytest.raises(MediaError, match="HEIF"):
        probe(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100))
