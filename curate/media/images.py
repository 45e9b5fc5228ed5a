"""Images: from bytes to sRGB pixels, and from pixels to views."""

from __future__ import annotations

import random
import struct
import sys
import warnings
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.media import image_metadata as metadata
from curate.media.chunks import PNG
from curate.media.colour import Numbers, lab
from curate.media.decodes import counted
from curate.media.image_metadata import Metadata
from curate.media.jpeg import check_strips, decode_jpeg
from curate.media.requests import Frames
from curate.media.sniff import named, refused, unreadable
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused unread; Pillow's own limit of a decompression bomb. It keeps four bytes a
pixel: at the limit an image takes 0.7 GB, its copy as RGB as much, and WebP's decoder 1.4 GB more. The most was
measured of a 16-bit RGB PNG with a transparent colour: 2.4 GB."""

_FEW_PIXELS = 1 << 14
"""Of a PNG of fewer pixels all rows are counted at once: to look at the last one first would take longer."""

_STRIP = 1 << 22
"""Pixels whose colours are converted at once: each step makes a copy, and an image at the limit has no room for
five."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The only Pillow readers that may look at the data (EPS, for one, would start Ghostscript)."""

_STAY_OPEN = frozenset({"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP"})
"""Formats whose pixels are the same after their size and orientation were asked for."""

_MAX_PAGES = 64
"""Pages of a TIFF that are looked at for one that is not a thumbnail."""

_JPEG2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_EOC = b"\xff\xd9"
"""End of codestream (JPEG 2000, ISO/IEC 15444-1, A.4.4)."""

_DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)

# what Pillow's readers raise on broken data, by fuzzing
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)


def open_image(data: bytes, name: str = "") -> Image | None:
    """The image with its header read, or None where the data is not one of `FORMATS`.

    Raises MediaError for data that is refused (SVG, PSD, HEIF, empty, more than `MAX_PIXELS`), and for an image whose
    header cannot be read.
    """
    from PIL import Image

    why = refused(data)
    if why is not None:
        raise MediaError(named(name, why))
    try:
        Image.init()  # registers every reader; `formats` then limits which may look
        image = _opened(data)
    except Image.DecompressionBombError as error:
        raise MediaError(named(name, f"has more pixels than the limit of {MAX_PIXELS}")) from error
    except _UNREADABLE as error:
        kind, reason = _reason(data)
        if kind is None:
            return None
        raise MediaError(named(name, f"{unreadable(kind)} ({reason})")) from error
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(named(name, f"has {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}"))
    return image


_TIFF_GREYS = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
}
"""Deep greys of which 0 is white that Pillow has no entry for, beside the one (little endian, 16 bits) that it has and
does not invert either."""


def _opened(data: bytes) -> Image:
    from PIL import Image, PngImagePlugin, TiffImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = metadata.MAX_PROFILE
    for layout, mode in _TIFF_GREYS.items():
        TiffImagePlugin.OPEN_INFO.setdefault(layout, mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's bomb warning; the limit is checked in `open_image`
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except _UNREADABLE:
            mended = _mended(data)
            if mended is None:
                raise
            image = Image.open(BytesIO(mended), formats=FORMATS)
        for page in range(1, _MAX_PAGES):
            if not metadata.is_thumbnail(image):
                break
            try:
                image.seek(page)
            except EOFError:
                break
    return image


def _mended(data: bytes) -> bytes | None:
    """The same image without what Pillow stumbles over though it holds no pixel, or with the end that it lacks; None
    where there is neither."""
    if data.startswith(PNG):
        essential = metadata.essential_png(data)
        return None if essential == data else essential
    if data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 7 == len(data):
        return data + b"\0"  # the padding of the last chunk
    if data.startswith(_JPEG2000) and not data.endswith(_EOC):
        return data + (_EOC[1:] if data.endswith(_EOC[:1]) else _EOC)
    return None


def _reason(data: bytes) -> tuple[str | None, str]:
    """Which of `FORMATS` the data surely is, and what its reader says of it; None where it may be something else."""
    from PIL import Image

    for kind in FORMATS:
        factory, accept = Image.OPEN[kind]
        if accept is None or accept(data[:16]) is not True or not _is_surely(kind, data):
            continue
        try:
            factory(BytesIO(data), "")
        except _UNREADABLE as error:
            return kind, _one_line(error)
        return kind, "its header is broken"
    return None, ""


def _is_surely(kind: str, data: bytes) -> bool:
    """True if nothing else begins like this: Motion JPEG 2000 does like JPEG 2000, and text like BMP and PNM."""
    if kind == "BMP":
        return int.from_bytes(data[14:18], "little") in _DIB_HEADERS
    if kind == "JPEG2000":
        return data[20:24] in (b"jp2 ", b"jpx ")
    return kind != "PPM"


def display_size(image: Image, data: bytes, name: str = "") -> tuple[int, int]:
    """Width and height of what `decode_image` gives.

    Raises MediaError where its metadata cannot be honoured.
    """
    try:
        return metadata.display_size(image, data)
    except ValueError as error:
        raise MediaError(named(name, f"is a {image.format} image that is not read ({_one_line(error)})")) from error


def decode_image(data: bytes, name: str = "", opened: Image | None = None) -> Image:
    """Decode an image to an 8-bit sRGB Pillow image, mode `RGB`, in display orientation.

    `docs/inputs.md` says what is read, honoured, ignored and refused, line by line. In short:

    * JPEG (of an MPO the first), PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PNM; of an animation the first frame.
    * Orientation and clean aperture are applied.
    * Palettes and 1-bit are expanded; grey is repeated in three channels; 16-bit samples keep their top 8 bits, after
      the conversion of colours but for RGB by the tables of an ICC profile. Samples without a stated white
      (32-bit, signed, float) are refused.
    * Colours are converted to sRGB: from an embedded ICC profile (LittleCMS, relative colorimetric with black point
      compensation), from code points (PNG cICP, AVIF nclx) or from gamma and primaries (PNG, BMP). HDR is clipped at
      its reference white. CMYK without a profile is converted by Pillow's formula.
    * Alpha is laid over white, after the conversion to sRGB.
    * Data that ends before the last pixel is a MediaError, never grey; a missing end marker is no damage.

    Args:
        data: the whole file.
        name: for messages only.
        opened: what `open_image` gave of it, of which only the header was read; it is of no use afterwards.
    """
    counted.images += 1
    image = opened if opened is not None and opened.format in _STAY_OPEN else open_image(data, name)
    if image is None:
        raise MediaError(named(name, "is not an image that can be read"))
    kind = image.format
    try:
        try:
            return _decoded(image, data)
        except _UNREADABLE:
            mended = _mended(data)
            if mended is None:
                raise
            return _decoded(_opened(mended), mended)
    except _UNREADABLE as error:
        raise MediaError(named(name, f"is a {kind} image that cannot be decoded ({_one_line(error)})")) from error


def _decoded(image: Image, data: bytes) -> Image:
    found = metadata.read(image, data)
    loaded = _loaded(image, data, found)
    if found.grey or (found.deep and isinstance(found.colour, Numbers)):
        found = replace(found, colour=None)  # it has been converted
    if found.crop is not None:
        loaded = loaded.crop(found.crop)
    return _converted(_upright(loaded, found.orientation), found)


def _loaded(image: Image, data: bytes, found: Metadata) -> Image:
    """The image with its pixels, stored as they are; with alpha where a part of the canvas is transparent."""
    if image.format in ("JPEG", "MPO"):
        return decode_jpeg(data, image.mode, image.size)
    if found.deep:
        return _deep(image, data, found)
    if image.format == "TIFF" and image.info.get("compression") == "jpeg":
        check_strips(getattr(image, "tag_v2", {}), data)
    if image.format == "TIFF":
        metadata.state_planes(image)
    if image.format == "PNG":
        _load_png(image, data)
    image.load()
    if found.doubtful_alpha and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    if found.premultiplied and image.mode in ("RGBA", "LA"):
        return _unmultiplied(image)
    if found.covered is not None:
        return _uncovered(image, found.covered)
    return image


def _deep(image: Image, data: bytes, found: Metadata) -> Image:
    """A PNG or TIFF of 16-bit RGB, or a PNG of grey and alpha, by all its bits, which Pillow drops half of: sRGB where
    its colours are told in numbers or it is grey, and with alpha where a sample is transparent."""
    from PIL import Image

    if found.grey:
        return _deep_grey(image, data, found)
    low: Any = _opened(data)
    if image.format == "TIFF":
        metadata.orientation(low, data)
        metadata.state_planes(low)
        metadata.state_planes(image)
    low.tile = [tile._replace(args=_other_order(tile.args)) for tile in low.tile]
    low.load()
    if image.format == "TIFF":
        image.load()
    else:
        _load_png(image, data)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    if found.transparent is not None:
        alpha = _keyed(image, low, found.transparent)
    if isinstance(found.colour, Numbers):
        out = Image.new("RGB", image.size)
        rows = max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            box = (0, top, image.width, min(top + rows, image.height))
            upper, lower = (np.asarray(part.crop(box))[..., :3] for part in (image, low))
            out.paste(found.colour.convert(upper.astype(np.uint16) * np.uint16(256) + lower), box)
        image = out
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _other_order(args: Any) -> Any:
    """The arguments of a Pillow decoder of 16-bit samples as if their bytes were stored the other way."""
    raw = args if isinstance(args, str) else args[0]
    big = raw[-1] == "B" or (raw[-1] == "N" and sys.byteorder == "big")
    other = raw[:-1] + ("L" if big else "B")
    return other if isinstance(args, str) else (other, *args[1:])


def _deep_grey(image: Any, data: bytes, found: Metadata) -> Image:
    """A PNG of 16-bit grey and alpha as sRGB: its four bytes a pixel are read as four channels."""
    from PIL import Image

    image.tile = [tile._replace(args="RGBA") for tile in image.tile]
    _load_png(image, data)
    out = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        samples = strip[..., 0].astype(np.uint16) * np.uint16(256) + strip[..., 1]
        out.paste(_grey_to_srgb(Image.fromarray(samples), 65535, found), (0, top))
    out.putalpha(image.getchannel("B"))
    return out


def _load_png(image: Any, data: bytes) -> None:
    """Load the pixels. Pillow leaves rows that are missing as they were: the last one that is stored is noise before,
    and must not be noise after. Raises ValueError."""
    from PIL import Image

    width, height = image.size
    if width * height < _FEW_PIXELS:
        image.load()
        if not metadata.has_all_rows(data):
            raise ValueError("its pixels end before the last row")
        return
    last = height - 2 if "interlace" in image.info and height % 2 else height - 1  # Adam7 ends with the odd rows
    box = (0, max(0, last), width, max(0, last) + 1)
    noise, stored = _noise(image.mode, width)
    image.im = Image.new(image.mode, image.size, None).im
    image.im.paste(noise.im, box)
    image.load()
    if (last < 0 or image.crop(box).tobytes() == stored) and not metadata.has_all_rows(data):
        raise ValueError("its pixels end before the last row")


@lru_cache(maxsize=16)
def _noise(mode: str, width: int) -> tuple[Image, bytes]:
    from PIL import Image

    row = Image.frombytes(mode, (width, 1), random.Random(0).randbytes(8 * width))
    return row, row.tobytes()


def _keyed(high: Image, low: Image, key: tuple[int, ...]) -> Image:
    """The alpha of 16-bit samples, upper and lower bytes, of which `key` is transparent (PNG, tRNS)."""
    from PIL import Image, ImageChops

    alpha = Image.new("L", high.size)
    for image, shift in ((high, 8), (low, 0)):
        for channel, sample in zip(image.split(), key, strict=True):
            wanted = sample >> shift & 255
            alpha = ImageChops.lighter(alpha, channel.point([0 if level == wanted else 255 for level in range(256)]))
    return alpha


def _uncovered(image: Image, box: metadata.Box) -> Image:
    """The image as RGBA, transparent outside of the box."""
    from PIL import Image

    whole = image.convert("RGBA")
    alpha = Image.new("L", whole.size)
    alpha.paste(whole.getchannel("A").crop(box), box)
    whole.putalpha(alpha)
    return whole


def _unmultiplied(image: Image) -> Image:
    """Colours that were stored multiplied by alpha."""
    from PIL import Image

    whole = image.convert("RGBA")
    return Image.frombuffer("RGBa", whole.size, whole.tobytes(), "raw", "RGBa", 0, 1).convert("RGBA")


def render(
    image: Image, view: Frames, display: tuple[int, int] | None = None, canvas: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """One image as a view wants it: uint8 `(h, w, 3)`.

    Resampling is Pillow's, the view's filter with `reducing_gap=3`: antialiased, in gamma space, the same on every run.

    Args:
        image: RGB.
        view: its size and crop.
        display: (width, height) that the image is shown at, where its pixels are not square.
        canvas: (width, height) of the result for a view without crop: the image is fitted in and centred on black.
            Frames of one sample share the canvas of the first. None: the image's own `view_size`.
    """
    from PIL import Image

    width, height = image.size
    shown = display or (width, height)
    how = Image.Resampling[view.resample.upper()]
    box: tuple[float, float, float, float]
    if view.crop:
        side = min(shown)
        left, top = (shown[0] - side) // 2, (shown[1] - side) // 2
        sx, sy = width / shown[0], height / shown[1]
        box = (left * sx, top * sy, (left + side) * sx, (top + side) * sy)
        return np.asarray(image.resize((view.size, view.size), how, box, 3.0), np.uint8)
    wanted = canvas or view_size(shown, view)
    fitted = _fit(shown, wanted)
    small = np.asarray(image.resize(fitted, how, None, 3.0), np.uint8)
    if fitted == wanted:
        return small
    out = np.zeros((wanted[1], wanted[0], 3), np.uint8)
    x, y = (wanted[0] - fitted[0]) // 2, (wanted[1] - fitted[1]) // 2
    out[y : y + fitted[1], x : x + fitted[0]] = small
    return out


def render_crop(image: Image, size: int, row: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A crop of an image, uint8 `(size, size, 3)`, resampled as `render` does.

    Args:
        image: RGB.
        row: of `crops.crop_settings`.
    """
    from PIL import Image

    top, left, height, width, flip = row.tolist()
    box = (left, top, left + width, top + height)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box, 3.0), np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels


def view_size(shown: tuple[int, int], view: Frames) -> tuple[int, int]:
    """(width, height) of the view of an image that is shown at `shown`."""
    if view.crop:
        return view.size, view.size
    longest = max(shown)
    return shown if longest <= view.size else _fit(shown, (view.size, view.size))


def _fit(shown: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """The largest (width, height) of the shape of `shown` that lies within `into`; at least one pixel each way."""
    width, height = shown
    if width * into[1] >= height * into[0]:
        return into[0], min(into[1], max(1, (2 * height * into[0] + width) // (2 * width)))
    return min(into[0], max(1, (2 * width * into[1] + height) // (2 * height))), into[1]


def _upright(image: Image, value: int) -> Image:
    from PIL.Image import Transpose

    transposes = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    if value == 1:
        return image
    turned = image.transpose(transposes[value])
    turned.info = image.info
    return turned


def _converted(image: Image, found: Metadata) -> Image:
    """RGB, sRGB, without alpha. Each pixel is converted by itself, so it is done strip by strip."""
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data and found.colour is None:
        return image
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return _over_white(_to_srgb(image, found))
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        out.paste(_over_white(_to_srgb(strip, found)), (0, top))
    return out


def _to_srgb(image: Image, found: Metadata) -> Image:
    """RGB or RGBA, 8 bit, sRGB."""
    if image.mode.startswith("I") or image.mode == "F":
        if found.white is None:
            raise ValueError("32-bit samples have no stated white")
        return _grey_to_srgb(image, found.white, found)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("P", "PA") or (image.has_transparency_data and image.mode not in ("RGBA", "LA")):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "1":
        image = image.convert("L")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    if alpha is not None:
        image = _without_alpha(image)
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    converted = _rgb(image, found.colour)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _grey_to_srgb(image: Image, white: int, found: Metadata) -> Image:
    """Of grey of more than 8 bits: colours are converted before bits are dropped."""
    from PIL import Image

    samples = np.asarray(image).astype(np.uint32)
    alpha = None
    if found.transparent is not None:
        alpha = Image.fromarray(np.where(samples == found.transparent[0], 0, 255).astype(np.uint8))
    grey = (np.minimum(samples, white) * 65535 // white).astype(np.uint16)
    if found.inverted:
        grey = 65535 - grey
    converted = None if found.colour is None else found.colour.convert(Image.fromarray(grey))
    if converted is None:
        converted = Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _rgb(image: Image, colour: metadata.Colour | None) -> Image:
    """RGB, 8 bit, sRGB of an image without alpha."""
    converted = None if colour is None else colour.convert(image)
    if converted is None and image.mode == "LAB":
        converted = lab().apply(image)
    return converted or (image if image.mode == "RGB" else image.convert("RGB"))


def _without_alpha(image: Image) -> Image:
    from PIL import Image

    return image.getchannel("L") if image.mode == "LA" else Image.merge("RGB", image.split()[:3])


def _over_white(image: Image) -> Image:
    from PIL import Image

    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _one_line(error: BaseException) -> str:
    text = "".join(ch if ch.isprintable() else " " for ch in str(error))
    return " ".join(text.split())[:150] or type(error).__name__
