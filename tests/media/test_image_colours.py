"""Colours that are not sRGB: ICC profiles, code points (cICP, nclx), gamma and primaries, HDR."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from image_files import (
    ADOBE,
    SRGB,
    bmp,
    chunk,
    cmyk_profile,
    curve,
    first,
    flat,
    icc,
    nclx,
    parametric,
    photo,
    png,
    s15,
    saved,
    srgb_curve,
    tiff,
    v5,
)
from PIL import Image, ImageCms
from synth import shipped

from curate.media.colour import coded, linear_light
from curate.media.images import decode_image

PIXEL = (128, 64, 16)
LINEAR = [188, 137, 71]
"""PIXEL as linear light, as sRGB: 255 * (1.055 * (v / 255) ** (1 / 2.4) - 0.055), IEC 61966-2-1."""

RGB = bytes(PIXEL)


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100000)))


def chrm(*values: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100000) for v in values)))


def cicp(*values: int) -> bytes:
    return chunk(b"cICP", bytes(values))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
S = chunk(b"sRGB", b"\0")
AS_IS = {
    "cICP of sRGB": cicp(1, 13, 0, 1),
    "cICP of BT.709": cicp(1, 1, 0, 1),
    "cICP unspecified": cicp(2, 2, 0, 1),
    "cICP of reserved codes": cicp(99, 99, 0, 1),
    "gAMA 1/2.2": gama(0.45455),
    "gAMA 0.45": gama(0.45),
    "gAMA 0": gama(0),
    "gAMA and cHRM of sRGB": gama(0.45455) + chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    "cHRM of nothing": chrm(*(0.0,) * 8),
    "cHRM of one point": chrm(*(0.3, 0.3) * 4),
    "sRGB before gAMA and cHRM": S + gama(1) + chrm(*P3),
    "cICP before iCCP": cicp(1, 13, 0, 1) + iccp(icc(curve(1))),
    "iCCP that is broken": iccp(b"x" * 200),
    "iCCP of grey": iccp(icc(curve(1), space=b"GRAY")),
    "mDCV and cLLI": chunk(b"mDCV", bytes(24)) + chunk(b"cLLI", bytes(8)),
    "bKGD, sBIT, pHYs": chunk(b"sBIT", b"\5\6\5") + chunk(b"bKGD", bytes(6)) + chunk(b"pHYs", bytes(8) + b"\1"),
}
MADE_LINEAR = {
    "gAMA 1": gama(1),
    "gAMA 1 and cHRM": gama(1) + chrm(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    "cICP linear": cicp(1, 8, 0, 1),
    "iCCP linear": iccp(icc(curve(1))),
    "iCCP before sRGB": S + iccp(icc(curve(1))),
    "iCCP before gAMA": iccp(icc(curve(1))) + gama(0.45455),
    "gAMA where iCCP is broken": iccp(b"x" * 200) + gama(1),
    "gAMA where cICP has a matrix": cicp(12, 13, 1, 1) + gama(1),
}


@pytest.mark.parametrize("name", AS_IS)
def test_png_chunks_that_change_nothing(name: str) -> None:
    assert first(png(RGB, before=AS_IS[name])) == list(PIXEL)


@pytest.mark.parametrize("name", MADE_LINEAR)
def test_png_chunks_of_linear_light(name: str) -> None:
    """The order in which they count: PNG (third edition), 4.3."""
    assert first(png(RGB, before=MADE_LINEAR[name])) == LINEAR


@pytest.mark.parametrize("chunks", [cicp(12, 13, 0, 1), chrm(*P3), chrm(*P3) + gama(0.45455)])
def test_display_p3_in_a_png(chunks: bytes) -> None:
    """(220, 20, 20) of P3 lies outside of sRGB."""
    assert np.abs(np.subtract(first(png(b"\xdc\x14\x14", before=chunks)), [240, 0, 0])).max() <= 1


def test_narrow_range_in_a_png() -> None:
    """H.273: 16 is black, 235 white."""
    assert first(png(bytes([235, 126, 16]), before=cicp(1, 13, 0, 0))) == [255, 128, 0]


@pytest.mark.parametrize(
    ("row", "bits", "kind", "more"),
    [
        (b"\x80", 8, 0, b""),
        (b"\x80\xff", 8, 4, b""),
        (b"\x80\x80", 16, 0, b""),
        (RGB + b"\xff", 8, 6, b""),
        (b"\0", 8, 3, chunk(b"PLTE", RGB)),
    ],
)
def test_gamma_of_every_kind_of_png(row: bytes, bits: int, kind: int, more: bytes) -> None:
    assert first(png(row, bits, kind, before=gama(1) + more))[0] == LINEAR[0]


def test_dark_grey_of_16_bits_is_converted_before_bits_are_dropped() -> None:
    """1/256 of linear light is level 13 of sRGB; its upper byte alone would be 0 or 1."""
    row = struct.pack(">H", 256)
    assert first(png(row, 16, 0, before=gama(1))) == [13] * 3
    assert first(png(row, 16, 0, before=iccp(icc(curve(1), space=b"GRAY")))) == [13] * 3


@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
def test_grey_and_alpha_of_16_bits_by_a_profile(space: bytes) -> None:
    """Half of linear light is level 188 of sRGB; the lower byte counts where the profile is of grey."""
    profile = iccp(icc(curve(1), space=space))
    row = struct.pack(">4H", 32768, 65535, 32768, 0)
    assert [first(png(row[i : i + 4], 16, 4, before=profile)) for i in (0, 4)] == [[188] * 3, [255] * 3]
    assert first(png(row[:4], 16, 4)) == [128] * 3
    dark = struct.pack(">2H", 256 + 128, 65535)
    assert first(png(dark, 16, 4, before=iccp(icc(curve(1), space=b"GRAY")))) == [18] * 3
    assert first(png(dark, 16, 4, before=gama(1))) == [18] * 3


def test_a_large_profile_of_a_png() -> None:
    """Tables of printers and scanners exceed 1 MiB; what unpacks to more than 16 MiB is ignored."""
    large = {b"priv": b"text\0\0\0\0" + np.random.default_rng(0).bytes(1_500_000)}
    assert first(png(RGB, before=iccp(icc(curve(1), extra=large)))) == LINEAR
    assert first(png(RGB, before=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 25))))) == list(PIXEL)
    assert first(png(RGB, before=chunk(b"iCCP", b"x\0\7" + zlib.compress(icc(curve(1)))))) == list(PIXEL)


def test_dark_rgb_of_16_bits_is_converted_before_bits_are_dropped() -> None:
    """As a renderer writes it: linear light of 1/256, 1/512, 1/1024. Code points likewise: PQ of 100 cd/m2."""
    row = struct.pack(">3H", 256, 128, 64)
    assert first(png(row, 16, 2, before=gama(1))) == [13, 6, 3]
    assert first(png(row + b"\xff\xff", 16, 6, before=gama(1))) == [13, 6, 3]
    assert first(png(row, 16, 2, before=gama(1) + chunk(b"tRNS", row))) == [255] * 3
    assert first(png(struct.pack(">3H", *[33297] * 3), 16, 2, before=cicp(9, 16, 0, 1))) == [186] * 3


DARK = (256, 128, 64)
"""16-bit linear light that is [13, 6, 3] of sRGB, and [13, 0, 0] or so by its upper bytes."""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["raw", "deflate", "planes", "alpha", "turned"])
def test_dark_rgb_of_16_bits_in_a_tiff_by_a_profile(layout: str, order: str) -> None:
    values = (*DARK, 65535) if layout == "alpha" else DARK
    raw = struct.pack(f"{order}{len(values)}H", *values)
    raw = raw + (raw if layout == "turned" else b"")
    tags = {256: (1,), 257: (1,), 258: (16,) * len(values), 262: (2,), 277: (len(values),)}
    tags |= {
        "deflate": {259: (8,)},
        "planes": {284: (2,), 273: (8, 10, 12), 279: (2,) * 3},
        "alpha": {338: (2,)},
        "turned": {257: (2,), 274: (6,)},
    }.get(layout, {})
    tags[34675] = tuple(icc(curve(1)))
    data = tiff(tags, zlib.compress(raw) if layout == "deflate" else raw, order, {273: "I", 34675: "B"})
    assert first(data) == [13, 6, 3]
    assert decode_image(data).size == ((2, 1) if layout == "turned" else (1, 1))


def test_dark_16_bits_in_a_png_by_a_profile_of_rgb() -> None:
    row, profile = struct.pack(">3H", *DARK), iccp(icc(curve(1)))
    assert first(png(row, 16, 2, before=profile)) == [13, 6, 3]
    assert first(png(row + b"\xff\xff", 16, 6, before=profile)) == [13, 6, 3]
    assert first(png(row[:2], 16, 0, before=profile)) == [13] * 3
    assert first(png(row[:2] + b"\xff\xff", 16, 4, before=profile)) == [13] * 3


def para(kind: int, *numbers: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(s15, numbers))


LINES = {
    "gamma": curve(1.8),
    "table": srgb_curve(26),
    "para 0": para(0, 1.8),
    "para 1": para(1, 2.0, 1.1, -0.1),
    "para 2": para(2, 2.0, 0.9, 0.0, 0.1),
    "para 3": para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
    "para 4": para(4, 3.0, 0.86, 0.14, 0.11, 0.08, 0.0, 0.0),
    "para 9, unknown": para(9, 1.0),
    "para 1 of nothing": para(1, 2.0, 0.0, 0.0),
    "a table that is cut off": b"curv\0\0\0\0" + struct.pack(">I", 999999),
    "no curve": b"",
}


@pytest.mark.parametrize("name", LINES)
def test_16_bits_by_a_profile_are_what_8_bits_are(name: str) -> None:
    """LittleCMS converts those of 8 bits; where it ignores the profile it is ignored for 16 bits too."""
    profile = iccp(icc(LINES[name], primaries=ADOBE))
    for pixel in (PIXEL, (250, 200, 3), (0, 0, 0), (255, 255, 255)):
        eight = first(png(bytes(pixel), before=profile))
        sixteen = first(png(struct.pack(">3H", *(257 * v for v in pixel)), 16, 2, before=profile))
        assert np.abs(np.subtract(eight, sixteen)).max() <= 2


@pytest.mark.parametrize("description", ["Linear Rec709", "GIMP built-in Linear sRGB", "sRGB-elle-V2-g10.icc"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_linear_profile_is_told_by_its_curves(kind: str, description: str) -> None:
    quality: dict[str, Any] = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(
        kind, {}
    )
    got = first(saved(flat(PIXEL, (16, 16)), kind, icc_profile=icc(curve(1), description), **quality))
    assert np.abs(np.subtract(got, LINEAR)).max() <= (8 if kind == "AVIF" else 2)


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        icc(srgb_curve(1024), "sRGB IEC61966-2.1"),
        icc(srgb_curve(26), "c2"),
        icc(parametric(), "", version=4),
    ],
    ids=["LittleCMS", "table of 1024", "table of 26", "version 4"],
)
def test_srgb_profiles_change_nothing(profile: bytes) -> None:
    truth = photo()
    assert decode_image(saved(truth, icc_profile=profile)).tobytes() == truth.tobytes()
    grey = Image.new("L", (8, 8), 77)
    assert first(saved(grey, icc_profile=profile)) == [77] * 3


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("skimage", "data/astronaut.png"),
        ("sklearn", "datasets/images/china.jpg"),
        ("psychopy", "**/BART/**/background.jpg"),
    ],
    ids=["HP in PNG", "HP in JPEG", "c2"],
)
def test_srgb_profiles_of_real_files_change_nothing(package: str, path: str) -> None:
    data = shipped(package, path)
    with Image.open(__import__("io").BytesIO(data)) as opened:
        assert opened.info.get("icc_profile"), "the file has no profile: it tests nothing"
        assert decode_image(data).tobytes() == opened.convert("RGB").tobytes()


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_profiles_of_a_gamma(gamma: float) -> None:
    light = (np.array(PIXEL) / 255) ** gamma
    truth = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(np.subtract(first(saved(flat(PIXEL), icc_profile=icc(curve(gamma)))), truth)).max() <= 1


def test_adobe_rgb_by_its_profile_and_by_nothing_else() -> None:
    """Its red is outside of sRGB; (128, 64, 16) of it is (149, 62, 0) after Bradford and clipping. EXIF's R03 without a
    profile is ignored, as browsers do."""
    got = first(saved(flat(PIXEL), icc_profile=icc(curve(2.2), primaries=ADOBE)))
    assert np.abs(np.subtract(got, [149, 62, 0])).max() <= 4
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0xA005)[1] = "R03"
    plain = first(saved(flat(PIXEL, (16, 16)), "JPEG", quality=100))
    assert first(saved(flat(PIXEL, (16, 16)), "JPEG", quality=100, exif=exif)) == plain


@pytest.mark.parametrize("kind", [b"mntr", b"scnr", b"prtr", b"spac"])
def test_classes_of_profiles_that_are_for_images(kind: bytes) -> None:
    assert first(saved(flat(PIXEL), icc_profile=icc(curve(1), kind=kind))) == LINEAR


@pytest.mark.parametrize("kind", [b"link", b"abst", b"nmcl"])
def test_other_classes_are_ignored(kind: bytes) -> None:
    assert first(saved(flat(PIXEL), icc_profile=icc(curve(1), kind=kind))) == list(PIXEL)


def test_code_points_inside_a_profile_are_ignored() -> None:
    """`cicp` (ICC.1:2022, 9.2.17): the profile's own curves say the same in the way of ICC."""
    profile = icc(curve(1), version=4, extra={b"cicp": b"cicp\0\0\0\0" + bytes([9, 16, 0, 1])})
    assert first(saved(flat(PIXEL), icc_profile=profile)) == LINEAR


def test_a_profile_of_a_gif_is_ignored() -> None:
    """Browsers ignore the application extension `ICCRGBG1012`."""
    data, profile = saved(flat(PIXEL), "GIF"), icc(curve(1))
    blocks = b"".join(bytes([len(part)]) + part for part in (profile[i : i + 255] for i in range(0, len(profile), 255)))
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    assert first(data[:at] + b"!\xff\x0bICCRGBG1012" + blocks + b"\0" + data[at:]) == list(PIXEL)


def test_response_curves_of_a_tiff_are_ignored() -> None:
    curves = {301: tuple(range(0, 65536, 256)), 290: (2,), 291: (0,) * 256}
    assert first(tiff({256: (1,), 257: (1,), 258: (8,), 262: (1,)} | curves, b"\x80")) == [128] * 3


@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("LA", (128, 255)), ("I;16", 32896)])
def test_grey_by_a_profile_of_grey_and_of_rgb(mode: str, value: Any, space: bytes) -> None:
    assert first(saved(Image.new(mode, (4, 4), value), icc_profile=icc(curve(1), space=space))) == [188] * 3


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_by_its_profile_else_by_a_formula(kind: str) -> None:
    """A printer whose cyan is L* 78.4, a* -68, b* -68, out of sRGB: (0, 229, 255)."""
    profile = cmyk_profile(0, (200, 60, 60))
    cyan, paper = Image.new("CMYK", (16, 16), (255, 0, 0, 0)), Image.new("CMYK", (16, 16))
    assert np.abs(np.subtract(first(saved(cyan, kind, icc_profile=profile)), [0, 229, 255])).max() <= 3
    assert first(saved(paper, kind, icc_profile=profile)) == [255] * 3
    assert first(saved(cyan, kind)) == [0, 255, 255]
    assert first(saved(cyan, kind, icc_profile=icc(curve(1)))) == [0, 255, 255]


def test_lab_in_a_tiff() -> None:
    """L* 53.2, a* 80.1, b* 67.2 is sRGB's red seen from D65, and nearly so from D50; signed bytes (TIFF 6.0, 23)."""
    got = first(tiff({256: (1,), 257: (1,), 258: (8, 8, 8), 262: (8,), 277: (3,)}, bytes([137, 80, 67])))
    assert np.abs(np.subtract(got, [250, 5, 11])).max() <= 3


def test_chunks_of_a_profile_in_a_jpeg_in_any_order() -> None:
    data = saved(flat(PIXEL, (16, 16)), "JPEG", quality=100, icc_profile=icc(curve(1), "d" * 70000))
    begin = data.index(b"ICC_PROFILE") - 4
    middle = begin + 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
    end = middle + 2 + int.from_bytes(data[middle + 2 : middle + 4], "big")
    assert first(data) == LINEAR
    assert first(data[:begin] + data[middle:end] + data[begin:middle] + data[end:]) == LINEAR
    assert first(data[:begin] + data[middle:]) == list(PIXEL), "one is missing: ignored, as browsers do"


def test_avif_by_its_code_points() -> None:
    data = saved(flat((220, 20, 20), (64, 48)), "AVIF", quality=100, subsampling="4:4:4")
    plain = first(data)
    assert np.abs(np.subtract(plain, (220, 20, 20))).max() <= 2
    assert np.abs(np.subtract(first(nclx(data, 12, 13)), [240, 0, 0])).max() <= 3
    assert first(nclx(data, 1, 1)) == plain
    assert first(nclx(data, 2, 2)) == plain
    assert first(nclx(data, 9, 16)) != plain


def test_a_profile_of_an_avif_counts_before_its_code_points() -> None:
    data = saved(flat((220, 20, 20), (64, 48)), "AVIF", quality=100, subsampling="4:4:4", icc_profile=icc(parametric()))
    assert data.count(b"colr") == 2, "it has one box only: it tests nothing"
    assert np.abs(np.subtract(first(nclx(data, 12, 13)), (220, 20, 20))).max() <= 2


@pytest.mark.parametrize("kind", ["still", "sequence"])
def test_avif_without_code_points_by_its_av1_header(kind: str, tmp_path: Path) -> None:
    """Grey of 10 bits, PQ, that is about 100 cd/m2."""
    out = tmp_path / "x.avif"
    frames = ["-frames:v", "1", "-still-picture", "1"] if kind == "still" else ["-frames:v", "3"]
    tags = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt709"
    source = ["-f", "lavfi", "-i", "color=c=0x828282:s=64x48:r=5", *frames, "-vf", f"format=yuv444p10le,{tags}"]
    encoder = ["-c:v", "libaom-av1", "-cpu-used", "8", str(out)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *encoder], check=True)
    data = out.read_bytes()
    untold = data.replace(b"colrnclx", b"freenclx")
    assert untold != data
    assert np.abs(np.subtract(first(untold), [186] * 3)).max() <= 6
    assert first(untold) == first(data)


HDR = [
    ("PQ, 100 cd/m2", 16, 0.508078, 186),
    ("PQ, 203 cd/m2, reference white", 16, 0.580689, 255),
    ("PQ, 1000 cd/m2", 16, 0.751827, 255),
    ("PQ, black", 16, 0.0, 0),
    ("HLG, 75 %, reference white", 18, 0.75, 255),
    ("HLG, 50 %", 18, 0.5, 137),
    ("gamma 2.2", 4, 0.5, 127),
    ("logarithmic", 9, 0.75, 152),
]


@pytest.mark.parametrize(("name", "transfer", "value", "level"), HDR)
def test_transfer_functions(name: str, transfer: int, value: float, level: int) -> None:
    """PQ: ITU-R BT.2100-2, table 4, and BT.2408-7, table 1 (203 cd/m2 are 58 % of PQ and 75 % of HLG). HLG 50 % is
    1/12 of scene light, (1/12) ** 1.2 * 1000 = 50.7 cd/m2, a quarter of white."""
    row = struct.pack(">H", round(value * 65535))
    assert abs(first(png(row, 16, 0, before=cicp(9, transfer, 0, 1)))[0] - level) <= 1


def test_pq_and_hlg_by_the_numbers_of_the_standards() -> None:
    nits = linear_light(np.array([0.508078, 0.580689, 0.751827, 1.0]), 16) * 203
    assert np.allclose(nits, [100, 203, 1000, 10000], rtol=2e-4)
    assert np.allclose(linear_light(np.array([0.5, 1.0]), 18), [1 / 12, 1.0], atol=1e-6)


def test_bt2020_to_bt709_by_the_numbers_of_the_standard() -> None:
    """ITU-R BT.2087-0 gives the inverse; this is BT.2407-0, 2."""
    found = coded(9, 13)
    assert found is not None
    truth = [1.6605, -0.5876, -0.0728, -0.1246, 1.1329, -0.0083, -0.0182, -0.1006, 1.1187]
    assert np.allclose(found.to_srgb, truth, atol=1e-4)


@pytest.mark.parametrize("primaries", [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22])
def test_white_stays_white_for_all_primaries(primaries: int) -> None:
    assert first(png(b"\xff\xff\xff", before=cicp(primaries, 13, 0, 1))) == [255, 255, 255]
    grey = first(png(b"\x80\x80\x80", before=cicp(primaries, 13, 0, 1)))
    assert np.abs(np.subtract(grey, 128)).max() <= 1


def test_large_images_are_converted_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.media.images._STRIP", 1 << 12)
    for profile in (icc(curve(1)), icc(srgb_curve(26))):
        data = saved(photo((200, 150)), icc_profile=profile)
        strips = decode_image(data).tobytes()
        with monkeypatch.context() as whole:
            whole.setattr("curate.media.images._STRIP", 1 << 22)
            assert decode_image(data).tobytes() == strips


SRGB_ENDPOINTS = tuple(v for column in SRGB for v in column)
CHROMATICITIES = (0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79)
"""The endpoints of `g/pal8v4.bmp` of bmpsuite: x, y, z of red, green and blue of sRGB."""
BMPS = {
    "calibrated, chromaticities": (v5(0, CHROMATICITIES, (2.2, 2.2, 2.2)), b"", list(PIXEL)),
    "calibrated, chromaticities, linear": (v5(0, CHROMATICITIES, (1, 1, 1)), b"", LINEAR),
    "calibrated, gamma 1/2.2": (v5(0, gammas=(1 / 2.2,) * 3), b"", list(PIXEL)),
    "sRGB": (v5(0x73524742), b"", list(PIXEL)),
    "Windows": (v5(0x57696E20), b"", list(PIXEL)),
    "linked profile": (v5(0x4C494E4B), b"", list(PIXEL)),
    "calibrated by zeros": (v5(0), b"", list(PIXEL)),
    "calibrated, gamma 2.2": (v5(0, SRGB_ENDPOINTS, (2.2, 2.2, 2.2)), b"", list(PIXEL)),
    "calibrated, linear": (v5(0, gammas=(1, 1, 1)), b"", LINEAR),
    "calibrated, linear, endpoints": (v5(0, SRGB_ENDPOINTS, (1, 1, 1)), b"", LINEAR),
    "embedded profile": (v5(0x4D424544, profile=len(icc(curve(1)))), icc(curve(1)), LINEAR),
    "embedded profile that is cut off": (v5(0x4D424544, profile=999), icc(curve(1))[:99], list(PIXEL)),
}


@pytest.mark.parametrize("name", BMPS)
def test_colour_spaces_of_bmp_headers(name: str) -> None:
    header, behind, right = BMPS[name]
    assert np.abs(np.subtract(first(bmp(header, bytes(reversed(PIXEL)) + b"\0" + behind)), right)).max() <= 1


def _jp2_with(data: bytes, colour: bytes) -> bytes:
    """A JP2 that Pillow wrote with another `colr` box."""
    header, at = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    new = struct.pack(">I4s", 8 + len(colour), b"colr") + colour
    grown = int.from_bytes(data[header : header + 4], "big") + len(new) - size
    return data[:header] + grown.to_bytes(4, "big") + data[header + 4 : at] + new + data[at + size :]


def test_jpeg_2000_by_its_profile() -> None:
    for image, profile, right in (
        (flat(PIXEL, (64, 64)), icc(curve(1)), LINEAR),
        (Image.new("L", (64, 64), 128), icc(curve(1), space=b"GRAY"), [188] * 3),
        (flat(PIXEL, (64, 64)), b"broken" * 50, list(PIXEL)),
    ):
        assert first(_jp2_with(saved(image, "JPEG2000"), b"\2\0\0" + profile)) == right


def test_jpeg_2000_by_its_enumerated_colour_space() -> None:
    """16: sRGB. 18: sYCC (IEC 61966-2-1 annex G). 14, CIE Lab, and 20, e-sRGB, are not read."""
    data = saved(flat((128, 128, 200), (64, 64)), "JPEG2000")
    assert first(_jp2_with(data, b"\1\0\0" + (16).to_bytes(4, "big"))) == [128, 128, 200]
    assert np.abs(np.subtract(first(_jp2_with(data, b"\1\0\0" + (18).to_bytes(4, "big"))), [229, 77, 128])).max() <= 1
    for space in (14, 20):
        with pytest.raises(Exception, match=f"colour space {space} is not read"):
            decode_image(_jp2_with(data, b"\1\0\0" + space.to_bytes(4, "big")))
