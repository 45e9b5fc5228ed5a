"""Colours of still images to sRGB (IEC 61966-2-1): by an ICC profile, or by the numbers that say what colours mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

Floats = NDArray[np.float64]

SAME = 2
"""A conversion that moves no colour by more than so many levels of 255 is left out: the profiles of sRGB that are in
use (HP's, Microsoft's, the ICC's, tables of few entries) differ by no more, and their images stay exact."""

REFERENCE_WHITE = 203.0
"""cd/m2 of HDR that are the white of sRGB (ITU-R BT.2408-7, table 1)."""

_HLG_PEAK = 1000.0
"""cd/m2 of the display that HLG is shown on, for which its system gamma is 1.2 (ITU-R BT.2100-2, table 5)."""

D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)

_PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""Chromaticities (x, y) of red, green, blue and white (ITU-T H.273, table 2). Codes that are not here, among them 2
(unspecified), are read as 1, those of sRGB."""

_GAMMA22, _GAMMA28, _LINEAR, _LOG100, _LOG316, _PQ, _SMPTE428, _HLG = 4, 5, 8, 9, 10, 16, 17, 18
"""Transfer characteristics (ITU-T H.273, table 3) that have a curve of their own. The others are sRGB, unspecified, or
camera curves of the family of BT.709: these are shown as sRGB is, as browsers do and as frames of video are here."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class Numbers:
    """RGB or grey whose meaning is told in numbers.

    Attributes:
        to_srgb: row by row the matrix from linear RGB to linear sRGB; white stays white.
        luminance: what linear red, green and blue add to the luminance.
        transfer: a code of H.273; ignored where there are gammas.
        gammas: exponents that take red, green and blue to linear light.
        full_range: False: 16/255 is black and 235/255 white.
    """

    to_srgb: tuple[float, ...]
    luminance: tuple[float, ...]
    transfer: int = 13
    gammas: tuple[float, ...] | None = None
    full_range: bool = True

    def convert(self, image: Image | NDArray[np.uint16]) -> Image:
        """`RGB`, 8 bit, of an image of mode `RGB`, `L` or `I;16`, or of 16-bit RGB `(h, w, 3)`.

        HDR is clipped at `REFERENCE_WHITE`.
        """
        from PIL import Image as Images

        codes = np.asarray(image)
        grey = codes.ndim == 2
        curves = self._curves16 if codes.dtype == np.uint16 else self._curves8
        if grey:
            # greys that are not neutral (a gamma for each channel) are so few that they may be made like colours
            light = np.stack([curve[codes] for curve in curves], -1)
        else:
            light = np.stack([curve[codes[..., i]] for i, curve in enumerate(curves)], -1)
        if self.transfer == _HLG and self.gammas is None:
            # the OOTF of BT.2100: the display makes scene light Y brighter by Y ** 0.2
            scene = light @ np.array(self.luminance, np.float32)
            light *= (np.maximum(scene, 0) ** np.float32(0.2) * np.float32(_HLG_PEAK / REFERENCE_WHITE))[..., None]
        light = light @ np.array(self.to_srgb, np.float32).reshape(3, 3).T
        np.clip(light, 0, 1, out=light)
        return Images.fromarray(_encoding()[np.rint(light * 65535).astype(np.uint16)])

    @cached_property
    def _curves8(self) -> list[NDArray[np.float32]]:
        return self._curves(255)

    @cached_property
    def _curves16(self) -> list[NDArray[np.float32]]:
        return self._curves(65535)

    def _curves(self, white: int) -> list[NDArray[np.float32]]:
        """Linear light of each code, for red, green and blue; 1 is the white of sRGB (of HLG: scene light)."""
        codes = np.arange(white + 1, dtype=np.float64)
        values = codes / white
        if not self.full_range:
            step = (white + 1) // 256  # H.273, equations 22 to 24
            values = np.clip((codes / step - 16) / 219, 0, 1)
        if self.gammas is not None:
            return [(values**gamma).astype(np.float32) for gamma in self.gammas]
        return [linear_light(values, self.transfer).astype(np.float32)] * 3


def linear_light(values: Floats, transfer: int) -> Floats:
    """Light of coded values of 0 to 1: 1 is the white of sRGB, of PQ `REFERENCE_WHITE`; of HLG it is that of the scene.

    Args:
        transfer: a code of ITU-T H.273, table 3.
    """
    if transfer == _LINEAR:
        return values
    if transfer in (_GAMMA22, _GAMMA28):
        return values ** (2.2 if transfer == _GAMMA22 else 2.8)
    if transfer in (_LOG100, _LOG316):
        return np.where(values > 0, 10 ** ((values - 1) * (2.0 if transfer == _LOG100 else 2.5)), 0.0)
    if transfer == _SMPTE428:
        return np.minimum(values**2.6 * 52.37 / 48, 1)
    if transfer == _PQ:  # BT.2100, table 4
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        power = values ** (1 / m2)
        return (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10000 / REFERENCE_WHITE
    if transfer == _HLG:  # BT.2100, table 5
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * math.log(4 * a)
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def coded(primaries: int, transfer: int, full_range: bool = True) -> Numbers | None:
    """What code points of ITU-T H.273 say (PNG `cICP`, `nclx` of AVIF); None where it is sRGB."""
    points = _PRIMARIES.get(primaries, _PRIMARIES[1])
    return _unless_srgb(_numbers(_to_xyz(*points), transfer=transfer, full_range=full_range))


def calibrated(gammas: tuple[float, float, float] | None, to_xyz: Floats | None) -> Numbers | None:
    """What exponents and primaries say (PNG `gAMA` and `cHRM`, a BMP header); None where it is sRGB.

    Args:
        gammas: exponents to linear light; None, and 2.2 within 5 % (as in libpng), for the curve of sRGB, which 1/2.2
            stands for in nearly every file that states it.
        to_xyz: linear RGB to XYZ, `(3, 3)`; None for the primaries of sRGB, which are taken too where its white
            is none.
    """
    if gammas is not None and (not all(0.05 < g < 50 for g in gammas) or all(abs(g / 2.2 - 1) <= 0.05 for g in gammas)):
        gammas = None
    if to_xyz is None or not np.all(to_xyz.sum(1) > 0):
        to_xyz = _to_xyz(*_PRIMARIES[1])
    return _unless_srgb(_numbers(to_xyz, gammas=gammas))


def chromaticities(values: tuple[float, ...]) -> Floats | None:
    """Linear RGB to XYZ `(3, 3)` of eight chromaticities: x and y of white, red, green, blue (PNG `cHRM`); None where
    they make no triangle around white."""
    points = [(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
    if not all(0 <= x <= 1 and 0 < y <= 1 for x, y in points):
        return None
    try:
        found = _to_xyz(*points[1:], points[0])
    except np.linalg.LinAlgError:
        return None
    return found if bool(np.all(found[1] > 0)) else None


def _to_xyz(*points: tuple[float, float]) -> Floats:
    """Linear RGB to XYZ by the chromaticities of red, green, blue and white; white has Y = 1 (SMPTE RP 177)."""
    xyz = np.array([(x, y, 1 - x - y) for x, y in points]).T
    white = xyz[:, 3] / xyz[1, 3]
    colours = xyz[:, :3]
    return np.asarray(colours * np.linalg.solve(colours, white))


def _numbers(
    to_xyz: Floats, transfer: int = 13, gammas: tuple[float, ...] | None = None, full_range: bool = True
) -> Numbers:
    """Their white becomes that of sRGB by the Bradford transform (ICC.1:2022, annex E)."""
    srgb = _to_xyz(*_PRIMARIES[1])
    white, wanted = _BRADFORD @ to_xyz.sum(1), _BRADFORD @ srgb.sum(1)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(wanted / white) @ _BRADFORD @ to_xyz
    matrix = np.linalg.inv(srgb) @ adapted
    return Numbers(tuple(matrix.ravel()), tuple(adapted[1]), transfer, gammas, full_range)


@lru_cache(maxsize=32)
def _unless_srgb(numbers: Numbers) -> Numbers | None:
    return None if _same(_grid(), numbers.convert(_grid())) else numbers


@dataclass(frozen=True)
class Matrix(Numbers):
    """RGB whose meaning an ICC profile tells by three curves and a matrix, for samples of more than 8 bits, which
    Pillow does not hand to LittleCMS.

    Attributes:
        tags: the curves of red, green and blue: `curv` or `para`.
    """

    tags: tuple[bytes, ...] = ()

    def _curves(self, white: int) -> list[NDArray[np.float32]]:
        values = np.arange(white + 1, dtype=np.float64) / white
        return [_curve(tag, values).astype(np.float32) for tag in self.tags]


_PARAMETERS = ("g", "gab", "gabc", "gabcd", "gabcdef")


def _curve(tag: bytes, values: Floats) -> Floats:
    """Light of coded values of 0 to 1 (ICC.1:2022, 10.6 and 10.18). Raises ValueError for other curves."""
    if tag[:4] == b"curv":
        count = int.from_bytes(tag[8:12], "big")
        table = np.frombuffer(tag, ">u2", count, 12)
        if count == 0:
            return values
        if count == 1:
            return values ** (float(table[0]) / 256)
        return np.interp(values, np.linspace(0, 1, count), table / 65535)
    kind = int.from_bytes(tag[8:10], "big")
    if tag[:4] != b"para" or kind >= len(_PARAMETERS):
        raise ValueError("an unknown kind of curve")
    names = _PARAMETERS[kind]
    stated = dict(zip(names, np.frombuffer(tag, ">i4", len(names), 12) / 65536, strict=True))
    g, b, c, d, e, f = (float(stated.get(name, 0)) for name in "gbcdef")
    a = float(stated.get("a", 1))
    if kind in (1, 2):
        c, d, e, f = 0.0, -b / a, c, c
    with np.errstate(all="ignore"):
        power = np.maximum(a * values + b, 0) ** g + e
    light: Floats = np.nan_to_num(np.clip(np.where(values >= d, power, c * values + f), 0, 1))
    return light


@lru_cache(maxsize=16)
def matrix(data: bytes) -> Matrix | None:
    """What an ICC profile of RGB says by curves and a matrix; None where it says it in another way, or LittleCMS reads
    it otherwise, or it is sRGB."""
    tags = {}
    for at in range(132, 132 + 12 * min(100, int.from_bytes(data[128:132], "big")), 12):
        begin, size = int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        tags[data[at : at + 4]] = data[begin : begin + size]
    transform = _transform(data, "RGB")
    try:
        to_xyz = np.stack([np.frombuffer(tags[name], ">i4", 3, 8) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")], 1)
        numbers = _numbers(to_xyz)
        curves = tuple(tags[name] for name in (b"rTRC", b"gTRC", b"bTRC"))
        found = Matrix(numbers.to_srgb, numbers.luminance, tags=curves)
        agrees = transform is not None and _same(transform.apply(_grid()), found.convert(_grid()))
    except (KeyError, ValueError, ArithmeticError, np.linalg.LinAlgError):
        return None
    return found if agrees else None


@dataclass(frozen=True)
class Profile:
    """An ICC profile (ICC.1:2022) that `profile` has let through."""

    data: bytes

    def convert(self, image: Image) -> Image | None:
        """`RGB`, 8 bit, by LittleCMS: relative colorimetric, with black point compensation. None where the image is
        sRGB as it is.

        Args:
            image: `RGB`, `L`, `I;16`, `CMYK` or `LAB`, of the space that the profile is for; grey may have one of RGB.
        """
        from PIL import Image as Images

        opened = _opened(self.data)
        if opened is None:
            return None
        if image.mode in ("L", "I;16"):
            if opened.profile.xcolor_space == "GRAY":
                table = _greys(self.data)
                step = 257 if image.mode == "L" else 1
                return None if table is None else Images.fromarray(table[::step][np.asarray(image)])
            exact = matrix(self.data) if image.mode == "I;16" else None
            if exact is not None:
                return exact.convert(image)
            if image.mode == "I;16":
                image = Images.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("RGB")
        transform = _transform(self.data, image.mode)
        return None if transform is None else transform.apply(image)


_MODES = {"RGB ": ("RGB", "L", "I;16"), "GRAY": ("L", "I;16"), "CMYK": ("CMYK",), "Lab ": ("LAB",)}
"""What image a profile of a colour space may belong to. A grey one may have a profile of RGB, which browsers use."""

_CLASSES = {"scnr", "mntr", "prtr", "spac"}
"""Classes of profiles that say what an image's colours are; a device link, an abstract or a named one does not."""


def profile(data: bytes | None, mode: str) -> Profile | None:
    """The profile of an image of `mode` (`RGB`, `L`, `I;16`, `CMYK`, `LAB`); None where it is broken, of another kind,
    or of another colour space: browsers ignore it too."""
    opened = _opened(data) if data else None
    if opened is None or data is None or mode not in _MODES.get(opened.profile.xcolor_space, ()):
        return None
    return Profile(data)


@lru_cache(maxsize=16)
def _opened(data: bytes) -> ImageCmsProfile | None:
    from PIL import ImageCms

    try:
        found = ImageCms.ImageCmsProfile(BytesIO(data))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.profile.device_class in _CLASSES else None


@lru_cache(maxsize=16)
def _transform(data: bytes, mode: str) -> ImageCmsTransform | None:
    """From a profile to sRGB; None where there is no way, or the two are the `SAME`."""
    from PIL import ImageCms

    try:
        transform = _to_srgb(ImageCms.ImageCmsProfile(BytesIO(data)), mode)
        return None if mode == "RGB" and _same(_grid(), transform.apply(_grid())) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=16)
def _greys(data: bytes) -> NDArray[np.uint8] | None:
    """RGB `(65536, 3)` of each grey of 16 bits; None as in `_transform`. Unoptimised, for LittleCMS's own tables of
    grey make the darkest sixteenth of linear light half as bright as it is."""
    from PIL import Image as Images
    from PIL import ImageCms

    try:
        transform = _to_srgb(ImageCms.ImageCmsProfile(BytesIO(data)), "I;16", ImageCms.Flags.NOOPTIMIZE)
        levels = np.asarray(transform.apply(Images.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    table = levels.reshape(-1, 3)
    eight = np.arange(256)[:, None]
    return None if int(np.abs(table[::257].astype(np.int16) - eight).max()) <= SAME else table


def _to_srgb(source: ImageCmsProfile, mode: str, flags: int = 0) -> ImageCmsTransform:
    from PIL import ImageCms

    return ImageCms.buildTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | flags,
    )


@lru_cache(maxsize=1)
def lab() -> ImageCmsTransform:
    """From CIE L*a*b* of D50 (TIFF 6.0, section 23) to sRGB."""
    from PIL import ImageCms

    return _to_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


@lru_cache(maxsize=1)
def _grid() -> Image:
    """Colours all over the space: 17 levels of each channel and all 256 greys."""
    from PIL import Image as Images

    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    return Images.fromarray(np.concatenate([cube, greys])[None])


def _same(before: Image, after: Image) -> bool:
    moved = np.asarray(before, np.int16) - np.asarray(after, np.int16)
    return int(np.abs(moved).max()) <= SAME


@lru_cache(maxsize=1)
def _encoding() -> NDArray[np.uint8]:
    """The level of sRGB of linear light, in 65,536 steps."""
    light = np.arange(65536) / 65535
    values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels
