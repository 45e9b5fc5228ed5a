"""Pictures: from bytes to sRGB pixels, and from pixels to views."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.media.sniff import named, refused
from curate.media.views import Frames
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970
"""Pictures with more pixels are refused unread; Pillow's own limit of a decompression bomb. It keeps four bytes a
pixel: at the limit a picture takes 0.7 GB, its copy as RGB as much, and WebP's decoder 1.4 GB more."""

_STRIP = 1 << 22
"""Pixels whose colours are converted at once: each step makes a copy, and a picture at the limit has no room for
five."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The only Pillow readers that may look at the data (EPS, for one, would start Ghostscript)."""

_ORIENTATION = 0x0112

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


def open_picture(data: bytes, name: str = "") -> Image | None:
    """The picture with its header read, or None where the data is not one of `FORMATS`.

    Raises MediaError for data that is refused (SVG, PSD, HEIF, empty, more than `MAX_PIXELS`).
    """
    from PIL import Image

    why = refused(data)
    if why is not None:
        raise MediaError(named(name, why))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning; the limit is checked below
            Image.init()  # registers every reader; `formats` then limits which may look
            picture = Image.open(BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise MediaError(named(name, f"has more pixels than the limit of {MAX_PIXELS}")) from error
    except _UNREADABLE:
        return None
    if picture.width * picture.height > MAX_PIXELS:
        raise MediaError(
            named(name, f"has {picture.width} x {picture.height} pixels, more than the limit of {MAX_PIXELS}")
        )
    return picture


def orientation(picture: Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the block is broken."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except _UNREADABLE:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def display_size(picture: Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation."""
    width, height = picture.size
    return (height, width) if orientation(picture) >= 5 else (width, height)


def decode_picture(data: bytes, name: str = "") -> Image:
    """Decode a picture to an 8-bit sRGB Pillow image, mode `RGB`, in display orientation.

    The input contract:

    * JPEG (of an MPO the first), PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, PNM; of an animation the first frame.
    * The EXIF orientation is applied.
    * Palettes and 1-bit are expanded; grey is repeated in three channels; 16-bit samples keep their top 8 bits.
      Samples without a stated white (32-bit integer and float TIFF) are refused.
    * An embedded ICC profile is converted to sRGB (LittleCMS, relative colorimetric with black point compensation). A
      profile that is broken or belongs to another colour space is ignored, as browsers do. CMYK without a profile is
      converted by Pillow's formula. PNG gAMA and cHRM are ignored.
    * Alpha is laid over white, after the conversion to sRGB.
    * Data that ends before the last pixel is a MediaError, never grey.
    """
    picture = open_picture(data, name)
    if picture is None:
        raise MediaError(named(name, "is not a picture that can be read"))
    try:
        picture.load()
        return _converted(_upright(picture, orientation(picture)))
    except _UNREADABLE as error:
        raise MediaError(
            named(name, f"is a {picture.format} picture that cannot be decoded ({_one_line(error)})")
        ) from error


def render(
    picture: Image, view: Frames, display: tuple[int, int] | None = None, canvas: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """One picture as a view wants it: uint8 `(h, w, 3)`.

    Resampling is Pillow's Lanczos with `reducing_gap=3`: antialiased, in gamma space, the same on every run.

    Args:
        picture: RGB.
        view: its size and crop.
        display: (width, height) that the picture is shown at, where its pixels are not square.
        canvas: (width, height) of the result for a view without crop: the picture is fitted in and centred on black.
            Frames of one sample share the canvas of the first. None: the picture's own `view_size`.
    """
    from PIL import Image

    width, height = picture.size
    shown = display or (width, height)
    box: tuple[float, float, float, float]
    if view.crop:
        side = min(shown)
        left, top = (shown[0] - side) // 2, (shown[1] - side) // 2
        sx, sy = width / shown[0], height / shown[1]
        box = (left * sx, top * sy, (left + side) * sx, (top + side) * sy)
        return np.asarray(picture.resize((view.size, view.size), Image.Resampling.LANCZOS, box, 3.0), np.uint8)
    wanted = canvas or view_size(shown, view)
    fitted = _fit(shown, wanted)
    small = np.asarray(picture.resize(fitted, Image.Resampling.LANCZOS, None, 3.0), np.uint8)
    if fitted == wanted:
        return small
    out = np.zeros((wanted[1], wanted[0], 3), np.uint8)
    x, y = (wanted[0] - fitted[0]) // 2, (wanted[1] - fitted[1]) // 2
    out[y : y + fitted[1], x : x + fitted[0]] = small
    return out


def render_crop(picture: Image, size: int, row: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A crop of a picture, uint8 `(size, size, 3)`, resampled as `render` does.

    Args:
        picture: RGB.
        row: of `crops.crop_settings`.
    """
    from PIL import Image

    top, left, height, width, flip = row.tolist()
    box = (left, top, left + width, top + height)
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box, 3.0), np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels


def view_size(shown: tuple[int, int], view: Frames) -> tuple[int, int]:
    """(width, height) of the view of a picture that is shown at `shown`."""
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


def _upright(picture: Image, value: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    if value == 1:
        return picture
    turned = picture.transpose(turns[value])
    turned.info = picture.info
    return turned


def _converted(picture: Image) -> Image:
    """RGB, sRGB, without alpha. Each pixel is converted by itself, so it is done strip by strip."""
    from PIL import Image

    if picture.mode == "RGB" and not picture.has_transparency_data and "icc_profile" not in picture.info:
        return picture
    rows = max(1, _STRIP // picture.width)
    if rows >= picture.height:
        return _over_white(_to_srgb(picture))
    out = Image.new("RGB", picture.size)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        out.paste(_over_white(_to_srgb(strip)), (0, top))
    return out


def _to_srgb(picture: Image) -> Image:
    """RGB or RGBA, 8 bit, sRGB."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        eight = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        grey = Image.fromarray(eight)
        grey.info = {key: picture.info[key] for key in ("icc_profile",) if key in picture.info}
        picture = grey
    if picture.mode in ("I", "F"):
        raise ValueError("32-bit samples have no stated white")
    if picture.mode == "P" or (picture.has_transparency_data and picture.mode not in ("RGBA", "LA")):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if picture.mode == "1":
        picture = picture.convert("L")
    alpha = picture.getchannel("A") if picture.mode in ("RGBA", "LA") else None
    if alpha is not None:
        picture = _without_alpha(picture)
    converted = _by_profile(picture)
    if converted is None:
        converted = picture if picture.mode == "RGB" else picture.convert("RGB")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _without_alpha(picture: Image) -> Image:
    from PIL import Image

    if picture.mode == "LA":
        colour: Image.Image = picture.getchannel("L")
    else:
        colour = Image.merge("RGB", picture.split()[:3])
    colour.info = picture.info
    return colour


def _by_profile(picture: Image) -> Image | None:
    """The picture through its ICC profile; None where there is none that applies, or it says sRGB already."""
    from PIL import ImageCms

    icc = picture.info.get("icc_profile")
    space = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}.get(picture.mode)
    if not icc or space is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        if profile.profile.xcolor_space != space or "sRGB" in (profile.profile.profile_description or ""):
            return None
        return ImageCms.profileToProfile(
            picture,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _over_white(picture: Image) -> Image:
    from PIL import Image

    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
