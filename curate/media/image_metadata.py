"""What an image file says of its pixels that Pillow leaves to the caller: orientation, colours, cropping, sample range.

`docs/inputs.md` lists all of it, and what is ignored.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.media import boxes, chunks, colour
from curate.media.container import opened
from curate.media.last_file import LastFile
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

Box = tuple[int, int, int, int]
Colour = colour.Numbers | colour.Profile

_ORIENTATION = 0x0112
_TAGLESS = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP"})
_TAGS = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
"""Where Pillow looks for an orientation in these formats: most images have none, and to look takes as long as to decode
a small one."""
_READABLE_EXIF = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, RuntimeError, struct.error)

_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_FORMAT, _TIFF_SUBFILE = 256, 257, 258, 262, 339, 254
_TIFF_EXTRA, _TIFF_FILL_ORDER, _TIFF_SAMPLES, _TIFF_PLANAR = 338, 266, 277, 284
_TIFF_YCBCR = {529: (0.299, 0.587, 0.114), 530: (1, 1), 532: (0, 255, 128, 255, 128, 255)}
"""Coefficients, subsampling, and black and white of YCbCr as Pillow takes them to be where it is not compressed."""


_TIFF_DEEP = (("RGB", None), ("RGBA", (2,)))
"""Modes and ExtraSamples of 16-bit RGB that is read whole."""


@dataclass(frozen=True)
class Metadata:
    """What must be done to the pixels that Pillow decodes.

    Attributes:
        orientation: of EXIF, 1 to 8, that is yet to be applied.
        colour: what the colours are, where they are not sRGB.
        crop: the box of the stored image that is shown, before the orientation.
        covered: the box that the first frame of an animation fills; the rest of the canvas is transparent.
        white: the sample of grey of more than 8 bits that is white; None where the file does not say.
        inverted: True if 0 is white instead (16-bit grey only; Pillow inverts the others).
        premultiplied: True if colours are multiplied by alpha.
        doubtful_alpha: True if the file does not say that its fourth sample is alpha, or says it wrongly in many
            files: all of it 0, it is none.
        transparent: the sample, 16-bit grey or RGB, that is transparent.
        deep: True if 16-bit RGB, or grey and alpha, is needed whole, and not its upper bytes only.
        grey: True if that is grey and alpha.
    """

    orientation: int = 1
    colour: Colour | None = None
    crop: Box | None = None
    covered: Box | None = None
    white: int | None = 65535
    inverted: bool = False
    premultiplied: bool = False
    doubtful_alpha: bool = False
    transparent: tuple[int, ...] | None = None
    deep: bool = False
    grey: bool = False


def read(image: Image, data: bytes) -> Metadata:
    """Of an opened image whose pixels are not loaded yet, and the file that it is in.

    Raises ValueError for what cannot be honoured, with the reason.
    """
    turned = orientation(image, data)
    reader = _READERS.get(image.format or "")
    found: dict[str, Any] = reader(image, data) if reader else {"colour": _icc(image)}
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        found["white"] = None
    return Metadata(orientation=1 if image.format == "TIFF" else turned, **found)


def display_size(image: Image, data: bytes) -> tuple[int, int]:
    """Width and height that `decode_image` gives: after cropping and orientation."""
    width, height = image.size
    if image.format == "TIFF":  # Pillow has swapped them in some versions, for some orientations
        tags = getattr(image, "tag_v2", {})
        width, height = tags.get(_TIFF_WIDTH, width), tags.get(_TIFF_HEIGHT, height)
    elif image.format == "AVIF":
        crop = _avif_crop(image, data)
        width, height = (crop[2] - crop[0], crop[3] - crop[1]) if crop else (width, height)
    return (height, width) if orientation(image, data) >= 5 else (width, height)


def orientation(image: Image, data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the block is broken. Of AVIF it is that of
    `irot` and `imir`: MIAF (ISO/IEC 23000-22, 7.3.6.7) says that EXIF and XMP do not count there."""
    if image.format == "PNG" and "exif" not in image.info:
        # it may come after the pixels; Pillow's own getexif would decode them to find it
        late = next((content for kind, content in whole_chunks(data) if kind == b"eXIf"), None)
        if late is not None:
            image.info["exif"] = late
    if image.format in _TAGLESS and not _TAGS & image.info.keys():
        return 1
    value = None
    with suppress(*_READABLE_EXIF):
        value = _exif(image).get(_ORIENTATION)
    if value is None and image.format != "AVIF":
        value = _xmp_orientation(image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b"")
        if value is not None and image.format == "TIFF":
            image.getexif()[_ORIENTATION] = value  # Pillow turns a TIFF itself
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_XMLNS = re.compile(rb"""xmlns:([\w.-]{1,64})\s*=\s*["']http://ns\.adobe\.com/tiff/1\.0/["']""")
_XMP_VALUE = rb"""[<\s](?:%s):Orientation(?:\s*=\s*["']|(?:\s[^<>]{0,200})?>)\s*([1-8])\s*["'<]"""


def _xmp_orientation(xmp: bytes | str) -> int | None:
    """`tiff:Orientation` as an attribute or an element (XMP, ISO 16684-1, 7), by the prefix that the packet declares.
    Expressions find it, for packets are untrusted, and often are no proper XML."""
    text = xmp.encode() if isinstance(xmp, str) else xmp
    prefixes = b"|".join({b"tiff", *map(re.escape, _XMLNS.findall(text)[:8])})
    found = re.search(_XMP_VALUE % prefixes, text)
    return int(found[1]) if found else None


def _exif(image: Image) -> Exif:
    from PIL.Image import Exif
    from PIL.Image import Image as AnyImage

    if image.format == "AVIF":
        found = Exif()
        found.load(image.info.get("exif", b""))
        return found
    return AnyImage.getexif(image) if image.format == "PNG" else image.getexif()


_CHUNKS: LastFile[list[tuple[bytes, bytes]]] = LastFile()


def whole_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of the chunks of a PNG whose CRC is right; without the content of those that hold
    pixels. The last file's are kept."""
    return _CHUNKS.of(data, lambda: list(_whole_chunks(data)))


def _whole_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for kind, at, size in chunks.png_chunks(data):
        pixels = kind in (b"IDAT", b"fdAT")
        content = b"" if pixels else data[at : at + size]
        if pixels or zlib.crc32(kind + content) == int.from_bytes(data[at + size : at + size + 4], "big"):
            yield kind, content


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of Adam7 (PNG, third edition, 8.1): the first column and row of each pass, and the steps."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def has_all_rows(data: bytes) -> bool:
    """True if the pixels of a PNG that decodes are as many bytes as its header says: a stream may end properly, and
    too early."""
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    wanted = 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // right), -((top - height) // down)
        wanted += rows * (1 + (columns * bits * _CHANNELS[kind] + 7) // 8) if columns > 0 else 0
    stream = zlib.decompressobj()
    for kind, at, size in chunks.png_chunks(data):
        if stream.eof:
            break
        end = at + size
        for part in range(at, end if kind == b"IDAT" else 0, _PIECE):
            wanted -= len(stream.decompress(data[part : min(part + _PIECE, end)]))
            if wanted <= 0:
                return True
    return False


_PIECE = 1 << 14
"""Bytes that are inflated at once, to 16 MiB at most."""


def essential_png(data: bytes) -> bytes:
    """A PNG without its text, its animation, and the ancillary chunks that are damaged: all its pixels."""
    kept = [chunks.PNG]
    for kind, at, size in chunks.png_chunks(data):
        chunk = data[at - 8 : at + size + 4]
        whole = kind in _PNG_ANCILLARY and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind in _PNG_CRITICAL or (whole and _well_formed(kind, chunk[8:-4], data[25])):
            kept.append(chunk)
    return b"".join(kept)


MAX_PROFILE = 16 << 20
"""Bytes of an ICC profile, or a text, of a PNG, unpacked. Pillow's own limit of 1 MiB is less than the tables of many
printers and scanners take."""


def _well_formed(kind: bytes, content: bytes, colour_type: int) -> bool:
    """True if an ancillary chunk has its length; libpng ignores one that has another. Of a profile: True if it can be
    unpacked, to `MAX_PROFILE` at most."""
    if kind == b"iCCP":
        _, _, packed = content.partition(b"\0")
        stream = zlib.decompressobj()
        try:
            stream.decompress(packed[1:], MAX_PROFILE)
        except zlib.error:
            return False
        return packed[:1] == b"\0" and stream.eof
    if kind == b"tRNS" and colour_type in (0, 2):
        return len(content) == (2 if colour_type == 0 else 6)
    return len(content) == _PNG_LENGTHS.get(kind, len(content))


_PNG_LENGTHS = {b"cHRM": 32, b"sRGB": 1, b"gAMA": 4}
_PNG_INFO = {b"cHRM": "chromaticity", b"sRGB": "srgb", b"gAMA": "gamma", b"tRNS": "transparency"}
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_ANCILLARY = (b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")


def _png(image: Image, data: bytes) -> dict[str, Any]:
    bits, kind = data[24], data[25]
    for name, content in whole_chunks(data):  # Pillow passes over what is too long
        if name in _PNG_INFO and not _well_formed(name, content, kind):
            image.info.pop(_PNG_INFO[name], None)
        if name == b"IDAT":
            break
    found: dict[str, Any] = {"colour": _png_colour(image, data)}
    key = image.info.get("transparency")
    if bits == 16 and kind in (0, 2) and key is not None:
        found["transparent"] = (key,) if kind == 0 else key
        del image.info["transparency"]
    elif kind == 0 and bits in (2, 4) and isinstance(key, int):
        # Pillow scales the samples up to 8 bits, but not the one that is transparent
        image.info["transparency"] = key * (255 // (2**bits - 1))
    if bits == 16 and kind == 4 and found["colour"] is not None:
        return found | {"deep": True, "grey": True}
    if bits == 16 and kind in (2, 6):
        found["colour"] = _exact(found["colour"])
    told = isinstance(found["colour"], colour.Numbers) or "transparent" in found
    return found | {"deep": bits == 16 and kind in (2, 6) and told}


def _exact(stated: Colour | None) -> Colour | None:
    """The same colours, of 16-bit RGB, in numbers where they can be told so."""
    return (colour.matrix(stated.data) or stated) if isinstance(stated, colour.Profile) else stated


def _png_colour(image: Image, data: bytes) -> Colour | None:
    """The chunk that counts, in the order of PNG (third edition, 4.3): cICP, iCCP, sRGB, gAMA and cHRM."""
    for kind, content in whole_chunks(data):
        if kind == b"cICP" and len(content) == 4 and content[2] == 0:  # the matrix of RGB is the identity
            return colour.coded(content[0], content[1], content[3] != 0)
        if kind == b"IDAT":
            break
    embedded = colour.profile(image.info.get("icc_profile"), "L" if data[25] == 4 else _base(image.mode))
    if embedded is not None or "srgb" in image.info:
        return embedded
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and points is None:
        return None
    return colour.calibrated((1 / gamma,) * 3 if gamma else None, colour.chromaticities(points) if points else None)


def _icc(image: Image) -> colour.Profile | None:
    return colour.profile(image.info.get("icc_profile"), _base(image.mode))


def _base(mode: str) -> str:
    """The mode whose colours an image's are, once palette and alpha are off."""
    greys = {"1": "L", "LA": "L", "La": "L", "I;16B": "I;16", "I": "I;16"}
    return mode if mode in ("L", "I;16", "CMYK", "LAB") else greys.get(mode, "RGB")


def _tiff(image: Image, data: bytes) -> dict[str, Any]:
    tags = getattr(image, "tag_v2", {})
    if is_thumbnail(image):
        raise ValueError("it holds a thumbnail only, as camera raw files do")
    if 2 in tags.get(_TIFF_FORMAT, (1,)):
        raise ValueError("signed samples have no stated white")
    if image.mode == "YCbCr":
        ycbcr = {tag: tags.get(tag, (2, 2) if tag == 530 else usual) for tag, usual in _TIFF_YCBCR.items()}
        if not all(np.allclose(np.array(ycbcr[tag], float), usual, 0, 1e-3) for tag, usual in _TIFF_YCBCR.items()):
            raise ValueError("YCbCr that is subsampled or has its own coefficients is read only where it is compressed")
    grey = image.mode in ("I;16", "I;16B")
    stated = _icc(image)
    deep = set(tags.get(_TIFF_BITS, ())) == {16} and (image.mode, tags.get(_TIFF_EXTRA)) in _TIFF_DEEP
    exact = _exact(stated) if deep else stated
    twelve = grey and tags.get(_TIFF_BITS) == (12,)
    return {
        "colour": exact,
        "deep": deep and isinstance(exact, colour.Numbers),
        "white": 4095 if twelve else 65535,
        "inverted": grey and tags.get(_TIFF_PHOTOMETRIC) == 0,
        "doubtful_alpha": _TIFF_EXTRA not in tags,
    }


def state_planes(image: Any) -> None:
    """Tell Pillow how the planes of a TIFF (PlanarConfiguration 2) that is not compressed are stored: it takes the
    first letter of its raw mode, and so loses the depth, the order of bits and bytes, and which of 0 and 1 is white.

    Raises ValueError for planes that Pillow cannot read rightly.
    """
    from PIL import TiffImagePlugin

    tags = image.tag_v2
    if tags.get(_TIFF_PLANAR, 1) != 2 or image.info.get("compression") != "raw":
        return
    bits, order, fill = tags.get(_TIFF_BITS, (1,)), tags.prefix, tags.get(_TIFF_FILL_ORDER, 1)
    if tags.get(_TIFF_SAMPLES, 1) == 1:  # one plane is the whole image
        key = (order, tags.get(_TIFF_PHOTOMETRIC, 0), tags.get(_TIFF_FORMAT, (1,)), fill, bits, ())
        mode, raw = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))
        if mode != image.mode:
            raise ValueError("a single plane of this kind is not read")
        image.tile = [tile._replace(args=(raw, *tile.args[1:])) for tile in image.tile]
    elif set(bits) == {16} and fill == 1:
        depth = ";16L" if order == b"II" else ";16B"
        image.tile = [tile._replace(args=(tile.args[0] + depth, *tile.args[1:])) for tile in image.tile]
    elif set(bits) != {8} or fill != 1:
        raise ValueError("planes that are not of 8 or 16 bits are not read")


def is_thumbnail(image: Image) -> bool:
    """True if the page of a TIFF says (NewSubfileType) that it is a smaller version or a mask of another one."""
    return bool(getattr(image, "tag_v2", {}).get(_TIFF_SUBFILE, 0) & 5)


def _avif(image: Image, data: bytes) -> dict[str, Any]:
    return {"colour": _icc(image) or _avif_colour(data), "crop": _avif_crop(image, data)}


def _avif_colour(data: bytes) -> colour.Numbers | None:
    """By the `colr` box of the kind `nclx`, else by the AV1 sequence header, as the AVIF specification (2.2.1) says."""
    for kind, content, _, _ in _avif_properties(data):
        if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 11:
            primaries, transfer = struct.unpack(">HH", content[4:8])
            return colour.coded(primaries, transfer)  # the decoder has made RGB of full range
    try:
        with opened(data) as container:
            codec = container.streams.video[0].codec_context
            return colour.coded(codec.color_primaries or 1, codec.color_trc or 1)
    except (MediaError, IndexError):  # FFmpeg knows fewer kinds of AVIF than libavif
        return None


def _avif_properties(data: bytes) -> list[boxes.Box]:
    return boxes.sequence_properties(data) if data[8:12] == b"avis" else boxes.primary_properties(data)


def _avif_crop(image: Image, data: bytes) -> Box | None:
    """The box that a `clap` property shows. Raises ValueError where it does not lie within the image, or not on whole
    pixels (as MIAF asks, ISO/IEC 23000-22, 7.3.6.7)."""
    for kind, content, _, _ in _avif_properties(data):
        if kind == b"clap":
            edges = left, top, right, bottom = boxes.aperture(content, *image.size)
            inside = 0 <= left < right <= image.width and 0 <= top < bottom <= image.height
            if not inside or any(edge.denominator != 1 for edge in edges):
                raise ValueError("its clean aperture is not a box of whole pixels within it")
            box = int(left), int(top), int(right), int(bottom)
            return None if box == (0, 0, *image.size) else box
    return None


_JP2_COLOURS = {0, 12, 15, 16, 17, 18}
"""Enumerated colour spaces that Pillow makes RGB of: two levels, CMYK, sRGB, grey, sYCC (ISO/IEC 15444-1, I.5.3.3)."""


def _jp2(image: Image, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, content, _, _ in boxes.boxes(boxes.box(data, b"jp2h")):
        if kind == b"colr" and "colour" not in found and len(content) >= 7:
            method, space = content[0], boxes.number(content[3:7])
            if method == 1 and space not in _JP2_COLOURS:
                raise ValueError(f"its enumerated colour space {space} is not read")
            found["colour"] = colour.profile(bytes(content[3:]), _base(image.mode)) if method in (2, 3) else None
        if kind == b"cdef":
            kinds = [boxes.number(content[i + 2 : i + 4]) for i in range(2, len(content) - 5, 6)]
            found["premultiplied"] = 2 in kinds
    return found


def _bmp(image: Image, data: bytes) -> dict[str, Any]:
    return {"colour": _bmp_colour(data), "doubtful_alpha": True}


def _bmp_colour(data: bytes) -> Colour | None:
    """By the headers of versions 4 and 5 (BITMAPV5HEADER). A linked profile is a path on another machine."""
    size = int.from_bytes(data[14:18], "little")
    header = data[14 : 14 + size]
    if size < 108 or len(header) < size:
        return None
    kind = int.from_bytes(header[56:60], "little")
    if kind == int.from_bytes(b"MBED", "big") and size >= 124:
        at, length = struct.unpack("<II", header[112:120])
        return colour.profile(data[14 + at : 14 + at + length], "RGB")
    if kind != 0:
        return None
    endpoints = np.array(struct.unpack("<9i", header[60:96]), np.float64).reshape(3, 3).T / 2**30
    stated = (gamma / 65536 for gamma in struct.unpack("<3I", header[96:108]))
    red, green, blue = (1 / gamma if 0 < gamma < 1 else gamma for gamma in stated)
    if np.allclose(endpoints.sum(0), 1, 0, 0.01):  # chromaticities x, y, z, as many files have them: no white is told
        return colour.calibrated((red, green, blue), colour.chromaticities((*colour.D65, *endpoints[:2].T.ravel())))
    known = abs(float(np.linalg.det(endpoints))) > 1e-6
    return colour.calibrated((red, green, blue), endpoints if known else None)


def _gif(image: Image, data: bytes) -> dict[str, Any]:
    extents = getattr(image, "tile", None)
    box = extents[0][1] if extents else None
    return {} if box in (None, (0, 0, *image.size)) else {"covered": box}


def _webp(image: Image, data: bytes) -> dict[str, Any]:
    """The first frame of an animation by its ANMF chunk (WebP container specification)."""
    found: dict[str, Any] = {"colour": _icc(image)}
    for kind, at, _ in chunks.riff_chunks(data):
        if kind == b"ANMF" and at + 12 <= len(data):
            x, y, width, height = (int.from_bytes(data[at + i : at + i + 3], "little") for i in (0, 3, 6, 9))
            box = (2 * x, 2 * y, 2 * x + width + 1, 2 * y + height + 1)
            return found | ({} if box == (0, 0, *image.size) else {"covered": box})
    return found


_READERS = {"PNG": _png, "TIFF": _tiff, "AVIF": _avif, "JPEG2000": _jp2, "BMP": _bmp, "GIF": _gif, "WEBP": _webp}
