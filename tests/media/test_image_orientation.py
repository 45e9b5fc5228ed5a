"""The size that a probe states is the size that is decoded, upright, for every format and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import avif_with, chunk, full_box, photo, png, saved, tiff
from PIL import Image, PngImagePlugin
from synth import corner_names, corners, stored

from curate.media.images import decode_image
from curate.media.probe import probe
from curate.schema.errors import MediaError

UPRIGHT = Image.fromarray(corners((64, 48)))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'


def exif(orientation: int) -> Image.Exif:
    out = Image.Exif()
    out[0x0112] = orientation
    return out


def sizes(data: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    found = probe(data)
    assert found.width is not None
    assert found.height is not None
    return (found.width, found.height), decode_image(data).size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF", "TIFF deflate", "TIFF jpeg"])
def test_exif_orientation_in_every_format(kind: str, orientation: int) -> None:
    """Of AVIF Pillow writes `irot` and `imir`."""
    compressed = {"TIFF deflate": {"compression": "tiff_adobe_deflate"}, "TIFF jpeg": {"compression": "jpeg"}}
    data = saved(stored(UPRIGHT, orientation), kind.split()[0], exif=exif(orientation), **compressed.get(kind, {}))
    assert sizes(data) == ((64, 48), (64, 48))
    assert corner_names(np.asarray(decode_image(data))) == "rgbw"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_byte_order(order: str, orientation: int) -> None:
    data = tiff({256: (3,), 257: (2,), 258: (8,), 262: (1,), 274: (orientation,)}, bytes(range(6)), order)
    size = (3, 2) if orientation < 5 else (2, 3)
    assert sizes(data) == (size, size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_behind_the_pixels_of_a_png(orientation: int) -> None:
    late = png(bytes([10, 10, 10, 200, 200, 200]), width=2, after=chunk(b"eXIf", exif(orientation).tobytes()[6:]))
    size = (2, 1) if orientation < 5 else (1, 2)
    assert sizes(late) == (size, size)
    levels = np.asarray(decode_image(late))[..., 0].ravel().tolist()
    assert levels == ([10, 200] if orientation in (1, 4, 5, 6) else [200, 10])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_alone_counts(kind: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
    options = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {700: XMP % 6}}}
    assert sizes(saved(photo(), kind, **options.get(kind, {"xmp": XMP % 6}))) == ((64, 96), (64, 96))


NAMESPACE = b'xmlns:t="http://ns.adobe.com/tiff/1.0/"'


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("packet", "turned"),
    [
        (b"<rdf:Description tiff:Orientation='6'/>", True),
        (b'<rdf:Description\n tiff:Orientation = "6" />', True),
        (b"<tiff:Orientation>6</tiff:Orientation>", True),
        (b"<tiff:Orientation rdf:datatype='x'> 6 </tiff:Orientation>", True),
        (b"<rdf:Description " + NAMESPACE + b" t:Orientation='6'/>", True),
        (b"<rdf:Description t:Orientation='6'/>", False),
        (b"<rdf:Description xtiff:Orientation='6' tiff:OrientationX='6'/>", False),
        (b"<rdf:Description tiff:Orientation='66'/>", False),
        (b"<tiff:Orientation/><x>6</x>" + b"tiff:Orientation " * 3000, False),
    ],
)
def test_ways_to_write_an_orientation_in_xmp(kind: str, packet: bytes, turned: bool) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    options = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {700: packet}}}.get(kind, {"xmp": packet})
    size = (64, 96) if turned else (96, 64)
    assert sizes(saved(photo(), kind, **options)) == (size, size)


def test_exif_and_xmp_of_an_avif_do_not_count() -> None:
    """MIAF, ISO/IEC 23000-22, 7.3.6.7: only `irot` and `imir` turn the image."""
    plain = saved(photo(), "AVIF", xmp=XMP % 6)
    assert sizes(plain) == ((96, 64), (96, 64))
    unit = Image.Exif()
    unit[0x0128] = 6
    tagged = saved(photo(), "AVIF", exif=unit)
    turned = tagged.replace(b"\x28\x01\x03\0", b"\x12\x01\x03\0").replace(b"\x01\x28\0\x03", b"\x01\x12\0\x03")
    assert turned != tagged, "Pillow writes no orientation into the EXIF of an AVIF: another tag is renamed"
    assert sizes(turned) == ((96, 64), (96, 64))


@pytest.mark.parametrize("value", [0, 9])
def test_an_orientation_that_is_none_is_ignored(value: int) -> None:
    block = Image.Exif()
    block[0x0112] = value
    assert sizes(saved(photo(), "JPEG", exif=block)) == ((96, 64), (96, 64))


def test_the_clean_aperture_of_an_avif_is_cut_out_before_it_is_turned() -> None:
    """32 x 24 pixels whose middle lies 32 to the left of and 8 below that of 96 x 64: 0 to 32, 28 to 52."""
    aperture = full_box(b"clap", b"".join(v.to_bytes(4, "big", signed=True) for v in (32, 1, 24, 1, -32, 1, 8, 1)))
    whole = saved(photo(), "AVIF", quality=100, subsampling="4:4:4")
    truth = decode_image(whole).crop((0, 28, 32, 52))
    assert decode_image(avif_with(whole, aperture)).tobytes() == truth.tobytes()
    turned = avif_with(whole, aperture, full_box(b"irot", b"\x03"))
    assert sizes(turned) == ((24, 32), (24, 32))
    assert decode_image(turned).tobytes() == truth.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize(
    "numbers", [(200, 1, 24, 1, 0, 1, 0, 1), (31, 1, 24, 1, 0, 1, 0, 1), (32, 0, 24, 1, 0, 1, 0, 1)]
)
def test_a_clean_aperture_that_is_none_is_refused(numbers: tuple[int, ...]) -> None:
    aperture = full_box(b"clap", b"".join(v.to_bytes(4, "big") for v in numbers))
    data = avif_with(saved(photo(), "AVIF"), aperture)
    with pytest.raises(MediaError, match="clean aperture"):
        probe(data)
    with pytest.raises(MediaError, match="clean aperture"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pixels_that_are_not_square_are_ignored(kind: str) -> None:
    assert sizes(saved(photo(), kind, dpi=(72, 144))) == ((96, 64), (96, 64))
    pasp = full_box(b"pasp", bytes([0, 0, 0, 2, 0, 0, 0, 1]))
    assert sizes(avif_with(saved(photo(), "AVIF"), pasp)) == ((96, 64), (96, 64))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "PPM", "JPEG2000"])
def test_formats_without_orientation(kind: str) -> None:
    """EXIF in a `uuid` box of JPEG 2000 is ignored, as its other readers do."""
    exif_box = full_box(b"uuid", b"JpgTiffExif->JP2" + exif(6).tobytes()[6:]) if kind == "JPEG2000" else b""
    assert sizes(saved(photo(), kind) + exif_box) == ((96, 64), (96, 64))
