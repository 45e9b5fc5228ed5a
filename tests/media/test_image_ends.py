"""A missing end marker is no damage; a missing pixel is, whatever stands where it was."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from image_files import chunk, curve, first, flat, icc, photo, pixels, png, saved
from PIL import Image

from curate.media.decode import decode
from curate.media.images import decode_image
from curate.media.requests import Frames
from curate.schema.errors import MediaError

EOI = b"\xff\xd9"
JPEGS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "optimised": {"optimize": True, "quality": 95},
}
WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda j: j,
    "no EOI": lambda j: j[:-2],
    "half an EOI": lambda j: j[:-1],
    "zeros behind": lambda j: j + bytes(500),
    "text behind": lambda j: j + b"abc" * 50,
    "another image behind": lambda j: j + saved(flat((1, 2, 3)), "JPEG"),
    "two EOIs": lambda j: j + EOI,
    "no EOI, zeros": lambda j: j[:-2] + bytes(500),
    "no EOI, text": lambda j: j[:-2] + b"abc" * 50,
    "text before the EOI": lambda j: j[:-2] + b"hello world 123456789" + EOI,
    "fill bytes before the EOI": lambda j: j[:-2] + b"\xff\xff\xff" + EOI,
    "JFIF of version 2": lambda j: j.replace(b"JFIF\0\1", b"JFIF\0\2", 1),
}
CUT: dict[str, Callable[[bytes], bytes]] = {
    "a byte": lambda j: j[:-3],
    "a byte, EOI": lambda j: j[:-3] + EOI,
    "two bytes, EOI": lambda j: j[:-4] + EOI,
    "ten bytes, EOI": lambda j: j[:-12] + EOI,
    "a hundredth": lambda j: j[: len(j) * 99 // 100],
    "a tenth, EOI": lambda j: j[: len(j) * 9 // 10] + EOI,
    "a tenth, zeros, EOI": lambda j: j[: len(j) * 9 // 10] + bytes(100) + EOI,
    "a tenth, zeros to 64 KiB": lambda j: (j[: len(j) * 9 // 10]).ljust(1 << 16, b"\0"),
    "a tenth, zeros to 64 KiB, EOI": lambda j: (j[: len(j) * 9 // 10]).ljust(1 << 16, b"\0") + EOI,
    "a hundredth, zeros, text, EOI": lambda j: (j[: len(j) * 99 // 100]) + bytes(4096) + b"abc" * 50 + EOI,
    "half": lambda j: j[: len(j) // 2],
    "half, zeros to its size": lambda j: (j[: len(j) // 2]).ljust(len(j), b"\0"),
    "half, zeros to 64 KiB": lambda j: (j[: len(j) // 2]).ljust(1 << 16, b"\0"),
    "half, another value to 64 KiB": lambda j: (j[: len(j) // 2]).ljust(1 << 16, b"\xcc"),
    "half, EOI": lambda j: j[: len(j) // 2] + EOI,
    "a tenth, JFIF of version 2": lambda j: j[: len(j) * 9 // 10].replace(b"JFIF\0\1", b"JFIF\0\2", 1) + EOI,
}


@pytest.mark.parametrize("end", WHOLE)
@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_that_are_whole(kind: str, end: str) -> None:
    data = saved(photo((200, 152)), "JPEG", **JPEGS[kind])
    assert decode_image(WHOLE[end](data)).tobytes() == Image.open(BytesIO(data)).tobytes()


@pytest.mark.parametrize("end", CUT)
@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_that_lack_pixels(kind: str, end: str) -> None:
    """Of those with an EOI libjpeg paints the rest grey, and only warns."""
    data = CUT[end](saved(photo((200, 152)), "JPEG", **JPEGS[kind]))
    with pytest.raises(MediaError, match=r"JPEG image that cannot be decoded \(.*[Pp]remature end"):
        decode(data, "image", [Frames(32)])


def test_codes_left_over_before_the_end_of_a_jpeg() -> None:
    """Blocks that were lost or changed places make the decoder lose its place, and codes are left over at the end. A
    few bytes may be the work of the writer."""
    data = saved(photo((200, 152)), "JPEG")
    codes = bytes(range(1, 41))
    with pytest.raises(MediaError, match="lost its place"):
        decode_image(data[:-2] + codes + EOI)
    for few in (codes[:4], b"A line of text.\r\n", bytes(100), b"\xaa" * 100):
        assert decode_image(data[:-2] + few + EOI).tobytes() == Image.open(BytesIO(data)).tobytes()


@pytest.mark.parametrize("behind", [b"", bytes(500), b"\xff\xff", EOI + bytes(4096)])
def test_a_flat_jpeg_whose_codes_are_zeros(behind: bytes) -> None:
    """Optimised codes of a flat image are zeros to its end: these are its pixels, and no filler."""
    data = saved(flat((200, 200, 200), (256, 256)), "JPEG", optimize=True)
    assert data[-40:-10] == bytes(30), "its codes are no zeros: it tests nothing"
    assert first(data + behind) == [200] * 3
    assert first(data[:-2]) == [200] * 3


def _scans(data: bytes) -> list[int]:
    """Where the tables before each scan of a progressive JPEG begin."""
    return [found.start() for found in re.finditer(rb"\xff\xc4", data)]


def test_a_progressive_jpeg_without_its_last_scans() -> None:
    """With an EOI it is an image of lower quality, as browsers show it, every pixel coded; without, it is cut off."""
    data = saved(photo((200, 152)), "JPEG", progressive=True)
    for at in _scans(data)[3:]:
        assert decode_image(data[:at] + EOI).size == (200, 152)
        with pytest.raises(MediaError, match="Premature end"):
            decode_image(data[:at])


def _restarts(data: bytes) -> list[int]:
    begin = data.index(b"\xff\xda")
    return [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data) if found.start() > begin]


def test_restart_markers_that_are_misnumbered_and_intervals_that_are_missing() -> None:
    data = saved(photo((200, 152)), "JPEG", restart_marker_blocks=3)
    truth = decode_image(data).tobytes()
    marks = _restarts(data)
    wrong = bytearray(data)
    for at in marks[5:9]:
        wrong[at + 1] = 0xD0 + (wrong[at + 1] + 4) % 8
    assert decode_image(bytes(wrong)).tobytes() == truth
    with pytest.raises(MediaError, match=r"[Pp]remature end"):
        decode_image(data[: marks[5]] + data[marks[6] :])


def test_a_profile_with_a_chunk_missing_hides_no_damage() -> None:
    data = saved(photo(), "JPEG", icc_profile=icc(curve(1), "d" * 70000))
    begin = data.index(b"ICC_PROFILE") - 4
    broken = data[:begin] + data[begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big") :]
    assert decode_image(broken).tobytes() == Image.open(BytesIO(data)).tobytes()
    with pytest.raises(MediaError, match="premature end"):
        decode_image(broken[:-20] + EOI)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_inside_a_tiff_that_lacks_pixels(mode: str) -> None:
    """libtiff paints the rest of a strip grey, and only warns."""
    data = saved(photo((200, 152)).convert(mode), "TIFF", compression="jpeg")
    with Image.open(BytesIO(data)) as whole:
        tags = whole.tag_v2  # type: ignore[attr-defined]
        assert decode_image(data).tobytes() == whole.convert("RGB").tobytes()
    end = tags[273][0] + tags[279][0]
    for lost in (20, tags[279][0] // 2):
        with pytest.raises(MediaError, match="JPEG data"):
            decode_image(data[: end - lost] + bytes(lost) + data[end:])
    assert decode_image(data[: end - 2] + bytes(2) + data[end:]).tobytes() == decode_image(data).tobytes()


def _png_of(stream: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("bits", "kind", "row"), [(8, 2, 3), (16, 2, 6), (16, 4, 4), (1, 0, 1), (8, 3, 1)])
def test_rows_that_are_missing_where_the_stream_of_a_png_ends_properly(
    bits: int, kind: int, row: int, interlaced: int
) -> None:
    """Of one column, black: Adam7 has eight rows in another order. Pillow would leave the missing ones black too."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 8, bits, kind, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(3))

    def of(rows: int) -> bytes:
        stream = chunk(b"IDAT", zlib.compress(bytes((1 + row) * rows)))
        return b"\x89PNG\r\n\x1a\n" + header + palette * (kind == 3) + stream + chunk(b"IEND", b"")

    alpha = kind == 4
    assert pixels(of(8)) == pixels(of(9)) == [[255 * alpha] * 3] * 8
    for rows in (7, 4, 1):
        with pytest.raises(MediaError, match=r"end before the last row|truncated"):
            decode_image(of(rows))


def _webp_of(stream: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I4s4sI", 12 + len(stream), b"WEBP", b"VP8L", len(stream)) + stream


def test_other_formats_that_were_cut_and_mended() -> None:
    """All lengths and end markers are right; the coded pixels end too early."""
    pixels = b"".join(b"\0" + row.tobytes() for row in np.asarray(photo()))
    stream = zlib.compress(pixels)
    webp = saved(photo(), "WEBP", lossless=True)[20:]
    webp = webp[: len(webp) & ~1]
    gif = saved(photo(), "GIF")
    assert decode_image(_png_of(stream)).tobytes() == photo().tobytes()
    assert decode_image(_webp_of(webp)).tobytes() == photo().tobytes()
    for mended in (_png_of(stream[:-40]), _webp_of(webp[:-40]), gif[:-400] + b"\0;"):
        with pytest.raises(MediaError):
            decode_image(mended)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "BMP", "PPM"])
@pytest.mark.parametrize("part", [0.5, 0.8, 0.95])
def test_every_format_that_is_cut_off_fails(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (120, 120, 3), np.uint8))
    data = saved(noise, kind)
    with pytest.raises(MediaError):
        decode_image(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    ("kind", "lost"),
    [("GIF", 1), ("GIF", 2), ("PNG", 12), ("PNG", 16), ("PNG", 4), ("JPEG2000", 2), ("JPEG2000", 1)],
    ids=["GIF trailer", "GIF terminator", "IEND", "IEND, CRC", "CRC of IEND", "EOC", "half an EOC"],
)
def test_other_end_markers_may_be_missing(kind: str, lost: int) -> None:
    data = saved(photo(), kind)
    assert decode_image(data[:-lost]).tobytes() == decode_image(data).tobytes()


def test_jpeg_2000_that_lacks_more_than_its_end_marker() -> None:
    data = saved(photo(), "JPEG2000")
    for lost in (3, 4, 10, 100):
        with pytest.raises(MediaError):
            decode_image(data[:-lost])
        with pytest.raises(MediaError):
            decode_image(data[:-lost] + EOI)


def test_the_padding_of_a_webp_may_be_missing() -> None:
    padded = [saved(photo((n, n)), "WEBP", lossless=True) for n in range(20, 30)]
    odd = [data for data in padded if int.from_bytes(data[16:20], "little") % 2]
    assert odd, "none is padded: it tests nothing"
    assert decode_image(odd[0][:-1]).tobytes() == decode_image(odd[0]).tobytes()
    with pytest.raises(MediaError):
        decode_image(odd[0][:-2])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_bytes_behind_an_image_are_ignored(kind: str) -> None:
    data = saved(photo(), kind)
    assert decode_image(data + b"\r\n" + bytes(99)).tobytes() == decode_image(data).tobytes()


def test_chunks_of_a_png_that_are_damaged() -> None:
    """Those that hold no pixels may be; a damaged palette or header is an error."""
    text = struct.pack(">I", 3) + b"tEXta\0b" + bytes(4)
    gamma = struct.pack(">I", 4) + b"gAMA" + struct.pack(">I", 100000) + bytes(4)
    assert pixels(png(b"\x80", kind=0, before=text)) == [[128] * 3]
    assert pixels(png(b"\x80", kind=0, before=gamma)) == [[128] * 3]
    assert pixels(png(b"\x80", kind=0, before=text + chunk(b"gAMA", struct.pack(">I", 100000)))) == [[188] * 3]
    late = png(b"\x80", kind=0, after=chunk(b"tEXt", b"a\0" + b"b" * 99))
    assert pixels(late[:-60]) == [[128] * 3], "cut off in the text behind the pixels"
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 25)))
    assert pixels(png(b"\x80", kind=0, after=bomb)) == pixels(png(b"\x80", kind=0, before=bomb)) == [[128] * 3]
    palette = struct.pack(">I", 3) + b"PLTE" + b"abc" + bytes(4)
    with pytest.raises(MediaError, match="PNG image"):
        decode_image(png(b"\0", kind=3, before=palette))


@pytest.mark.parametrize("kind", [b"cHRM", b"sRGB", b"gAMA", b"tRNS"])
@pytest.mark.parametrize("size", [0, 3, 40])
def test_chunks_of_a_png_of_a_wrong_length_are_ignored(kind: bytes, size: int) -> None:
    """As libpng does, whatever they hold; other chunks count."""
    wrong = chunk(kind, bytes([0, 0, 0, 1] * 10)[:size])
    assert pixels(png(b"\x80", kind=0, before=wrong)) == [[128] * 3]
    assert pixels(png(b"\0\0\0", before=wrong)) == [[0] * 3]
    behind = chunk(b"iCCP", b"x\0\0" + zlib.compress(icc(curve(1))))
    assert pixels(png(b"\x80\x40\x10", before=wrong + behind)) == [[188, 137, 71]]
