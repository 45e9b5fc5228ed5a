"""Hostile media: good files broken in every way that the open web breaks them, and files made to do harm.

The same media, seed and count give the same cases. `crafted` are single ideas, each with what must come of it;
`mutated` are random damage, of which nothing is known but that it must end in views or in a `MediaError`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image
from synth import audio_file, flat, tone, video

TIMES = range(0, 1000, 40)
CLIP_SECONDS = 2
"""How much of a real video is kept: damage is as varied in two seconds as in sixty, and thirty times cheaper."""


class Expect(StrEnum):
    """What must come of a case."""

    DECODES = "decodes"
    FAILS = "fails"
    ANY = "any"


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        name: how it was made, and of what.
        data: the whole file.
        expectation: views, an error, or either.
        says: a part of the error's message, where it fails.
    """

    name: str
    data: bytes
    expectation: Expect = Expect.ANY
    says: str = ""


def cases(media: Mapping[str, bytes], seed: int, n: int, heavy: bool = False) -> Iterator[Case]:
    """`n` cases: all crafted ones first (the `heavy` too, where wanted), then mutations of `media`."""
    done = 0
    for case in crafted(heavy):
        if done == n:
            return
        done += 1
        yield case
    yield from mutated(media, seed, n - done)


def originals(folder: Path) -> dict[str, bytes]:
    """Good media by name: images and sounds of the quickstart's `folder`, clips of its videos in several
    containers, and each format that is read and not among them, made of one image and one sound."""
    out: dict[str, bytes] = {}
    paths = [path for path in sorted(folder.rglob("*")) if "faults" not in path.parts]
    for path in paths:
        if path.suffix in (".jpg", ".png", ".wav", ".mp3"):
            out[path.name] = path.read_bytes()
        if path.suffix in (".mp4", ".mpg"):
            containers = ["mp4", "matroska", "mpegts"] if path.suffix == ".mp4" else ["mpeg", "mpegts"]
            for container in containers:
                out[f"{path.stem}.{container}"] = clip(path.read_bytes(), container)
    image = Image.open(folder / "photos" / "beach.jpg").convert("RGB").resize((160, 120))
    for kind in ("GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "PNG", "JPEG"):
        out[f"beach.{kind.lower()}"] = saved(image, kind)
    steps = [image.rotate(20 * i) for i in range(6)]
    for kind in ("GIF", "WEBP", "PNG"):
        out[f"turning.{kind.lower()}"] = saved(steps[0], kind, save_all=True, append_images=steps[1:])
    out["progressive.jpg"] = saved(image, "JPEG", progressive=True)
    voice = tone(1.0)
    for codec, container in (
        ("flac", "flac"),
        ("libopus", "ogg"),
        ("aac", "adts"),
        ("aac", "mp4"),
        ("ac3", "ac3"),
        ("libmp3lame", "mp3"),
        ("pcm_s24le", "w64"),
        ("pcm_s16be", "aiff"),
        ("wavpack", "wv"),
    ):
        out[f"tone.{codec}.{container}"] = audio_file(voice, rate=48000, codec=codec, container=container)
    for codec, container in (
        ("libvpx-vp9", "webm"),
        ("libvpx", "webm"),
        ("libx265", "mp4"),
        ("mpeg2video", "mpegts"),
        ("mpeg4", "avi"),
        ("flv", "flv"),
        ("wmv2", "asf"),
        ("mjpeg", "mov"),
        ("ffv1", "matroska"),
        ("libx264", "h264"),
        ("prores_ks", "mov"),
    ):
        pix_fmt = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        quick = {"cpu-used": "8", "deadline": "realtime"} if codec.startswith("libvpx") else {}
        data = video(
            range(25),
            base=Fraction(1, 25),
            codec=codec,
            container=container,
            pix_fmt=pix_fmt,
            images=moving(25, (96, 64)),
            size=(96, 64),
            options=quick,
        )
        out[f"moving.{codec}.{container}"] = data
    return out


def clip(data: bytes, container: str) -> bytes:
    """The first `CLIP_SECONDS` of a file's packets, not coded again."""
    out = BytesIO()
    with av.open(BytesIO(data)) as reader, av.open(out, "w", format=container) as writer:
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams if s.type in ("video", "audio")}
        first: dict[int, float] = {}
        for packet in reader.demux([reader.streams[i] for i in streams]):
            if packet.dts is None or packet.time_base is None:
                continue
            at = float(packet.dts * packet.time_base)
            if at - first.setdefault(packet.stream.index, at) < CLIP_SECONDS:
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)
    return out.getvalue()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def moving(n: int, size: tuple[int, int]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """`n` images of a texture that moves."""
    texture = np.random.default_rng(5).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return [np.roll(texture.repeat(8, 0).repeat(8, 1), 3 * i, 1) for i in range(n)]


# ---- random damage ----


def mutated(media: Mapping[str, bytes], seed: int, n: int) -> Iterator[Case]:
    """`n` mutations; each depends on the seed and its number alone."""
    names = sorted(media)
    ways = sorted(WAYS)
    for i in range(n):
        random = Random(f"{seed} {i}")
        name, way = random.choice(names), ways[i % len(ways)]
        other = media[random.choice(names)]
        yield Case(f"{seed}.{i} {way} of {name}", WAYS[way](media[name], other, random))


def _truncated(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: random.choice(boundaries(data)) + random.choice((-1, 0, 0, 1))]


def _cut_in_header(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: random.randrange(1, 200)]


def _cut_anywhere(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: random.choice((len(data) - 1, random.randrange(1, len(data))))]


def _header_bits(data: bytes, _: bytes, random: Random) -> bytes:
    return _flipped(data, random, 0, min(len(data), 512))


def _body_bits(data: bytes, _: bytes, random: Random) -> bytes:
    return _flipped(data, random, len(data) // 10, len(data))


def _bits_at_a_boundary(data: bytes, _: bytes, random: Random) -> bytes:
    at = min(random.choice(boundaries(data)), len(data) - 1)
    return _flipped(data, random, at, min(len(data), at + 24))


def _flipped(data: bytes, random: Random, begin: int, end: int) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        out[random.randrange(begin, end)] ^= 1 << random.randrange(8)
    return bytes(out)


def _a_lying_number(data: bytes, _: bytes, random: Random) -> bytes:
    """An extreme integer where a box, a chunk or a page states its size, its count or its shape."""
    order = random.choice((">", "<"))
    code, values = random.choice(
        (
            ("H", (0, 1, 0x7FFF, 0x8000, 0xFFFF)),
            ("I", (0, 1, 7, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)),
            ("Q", (0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)),
        )
    )
    number = struct.pack(order + code, random.choice(values))
    at = random.choice((random.randrange(min(len(data), 256)), random.choice(boundaries(data)) + random.randrange(48)))
    return (data[:at] + number + data[at + len(number) :])[: len(data)]


def _zeros_inside(data: bytes, _: bytes, random: Random) -> bytes:
    at, length = random.randrange(len(data)), random.choice((1, 16, 512, 20_000))
    return (data[:at] + bytes(length) + data[at + length :])[: len(data)]


def _bytes_missing(data: bytes, _: bytes, random: Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + data[at + random.choice((1, 2, 188, 4096)) :]


def _a_part_twice(data: bytes, _: bytes, random: Random) -> bytes:
    a, b = sorted((random.choice(boundaries(data)), random.choice(boundaries(data))))
    return data[:b] + data[a:]


def _parts_swapped(data: bytes, _: bytes, random: Random) -> bytes:
    a, b, c = sorted(random.choice(boundaries(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _followed_by_another(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.choice((len(data), len(data) // 2))] + other


def _spliced(data: bytes, other: bytes, random: Random) -> bytes:
    """The head of one file and the tail of another."""
    return data[: random.choice(boundaries(data))] + other[random.choice(boundaries(other)) :]


def _zero_padded(data: bytes, _: bytes, random: Random) -> bytes:
    pad = bytes(random.choice((1, 1000, 100_000)))
    return data + pad if random.random() < 0.5 else pad + data


WAYS: dict[str, Callable[[bytes, bytes, Random], bytes]] = {
    "cut at a boundary": _truncated,
    "cut in the header": _cut_in_header,
    "cut anywhere": _cut_anywhere,
    "flipped bits in the header": _header_bits,
    "flipped bits in the body": _body_bits,
    "flipped bits at a boundary": _bits_at_a_boundary,
    "a lying number": _a_lying_number,
    "zeros inside": _zeros_inside,
    "bytes missing": _bytes_missing,
    "a part twice": _a_part_twice,
    "parts swapped": _parts_swapped,
    "another file behind": _followed_by_another,
    "the tail of another": _spliced,
    "padded with zeros": _zero_padded,
}


def boundaries(data: bytes) -> list[int]:
    """Offsets at which parts of a file begin: boxes, chunks, segments, pages and packets; at least its middle."""
    found: set[int] = set()
    if data[4:8] == b"ftyp":
        found.update(at for _, at, _ in mp4_boxes(data))
    elif data.startswith(b"\x89PNG"):
        at = 8
        while at + 8 <= len(data):
            found.add(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            found.add(at)
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    elif data[:4] in (b"RIFF", b"FORM"):
        order = "little" if data[:4] == b"RIFF" else "big"
        at = 12
        while at + 8 <= len(data):
            found.add(at)
            size = int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
            at += 12 if data[at : at + 4] == b"LIST" else 8 + size + size % 2
    elif data.startswith(b"OggS"):
        at = 0
        while at >= 0:
            found.add(at)
            at = data.find(b"OggS", at + 4)
    elif data[:1] == b"\x47" and len(data) % 188 == 0:
        found.update(range(0, len(data), 188))
    elif data[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x00\x01"):
        at = 0
        while at >= 0:
            found.add(at)
            at = data.find(b"\x00\x00\x01", at + 3)
    elif data.startswith(b"\x1a\x45\xdf\xa3"):
        for element in (b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b", b"\xae"):
            found.add(max(0, data.find(element)))
        at = data.find(b"\x1f\x43\xb6\x75")
        while at >= 0:
            found.add(at)
            at = data.find(b"\xa3", at + 200)
    return sorted(at for at in found if 0 < at < len(data)) or [len(data) // 2]


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf")


def mp4_boxes(data: bytes, begin: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Type, offset and size of boxes, those inside others too (ISO/IEC 14496-12, 4.2)."""
    at, end = begin, len(data) if end is None else end
    while at + 8 <= end:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size < 8:
            return
        yield kind, at, size
        if kind in _PARENTS:
            yield from mp4_boxes(data, at + 8, min(end, at + size))
        at += size


# ---- single ideas ----


def crafted(heavy: bool = False) -> Iterator[Case]:
    """Every single idea; the `heavy` ones take a second or more each, or much memory."""
    yield from _not_media()
    yield from _images()
    yield from _recordings()
    yield from _videos()
    if heavy:
        yield from _heavy()


def _not_media() -> Iterator[Case]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">%s</svg>'
    entities = b"".join(b'<!ENTITY e%d "%s">' % (i + 1, b"&e%d;" % i * 10) for i in range(9))
    lol = b'<?xml version="1.0"?>\n<!DOCTYPE svg [<!ENTITY e0 "lol">' + entities + b"]>\n" + svg % b"<text>&e9;</text>"
    outside = b'<?xml version="1.0"?>\n<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n' + svg % b"&x;"
    link = svg % b'<image href="http://169.254.169.254/latest/meta-data"/>'
    yield Case("no bytes", b"", Expect.FAILS, "is empty (0 bytes)")
    yield Case("one byte", b"\xff", Expect.FAILS)
    yield Case("zeros", bytes(100_000), Expect.FAILS, "zero")
    yield Case("noise", np.random.default_rng(1).bytes(100_000), Expect.FAILS)
    for name, data in (
        ("svg", svg % b""),
        ("svg with an entity bomb", lol),
        ("svg with a file of the machine", outside),
        ("svg with an address of the network", link),
        ("svg behind white space", b"\xef\xbb\xbf \n" + svg % b""),
        ("svg behind a long comment", b"<!--" + b" long " * 2000 + b"-->" + svg % b""),
    ):
        yield Case(name, data, Expect.FAILS, "SVG" if b"long" not in data else "")
    yield Case("html", b"<!DOCTYPE html><html>404</html>", Expect.FAILS, "HTML page")
    yield Case("a playlist", b"#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n", Expect.FAILS, "playlist")
    yield Case("a concat list", b"ffconcat version 1.0\nfile '/etc/passwd'\n", Expect.FAILS)
    yield Case("a session description", b"v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 10.0.0.1\n", Expect.FAILS)
    yield Case("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ls) system\n", Expect.FAILS)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with a checksum that holds (PNG, 5.3)."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(width: int, height: int, body: bytes, *more: bytes, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG of stated size around compressed scan lines."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", body), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _images() -> Iterator[Case]:
    small = Image.fromarray(flat(7, (32, 24)))
    jpeg, gif, webp = saved(small, "JPEG"), saved(small, "GIF"), saved(small, "WEBP")
    lines = zlib.compress(bytes(24 * 5))
    yield Case("png, 65,535 x 65,535", png(65535, 65535, lines), Expect.FAILS, "limit")
    yield Case("png, 2,147,483,647 x 1", png(2**31 - 1, 1, lines), Expect.FAILS)
    yield Case("png, no pixels", png(0, 0, lines), Expect.FAILS)
    yield Case("png, larger than its lines", png(4000, 4000, lines), Expect.FAILS)
    wrong = bytearray(saved(small, "PNG"))
    wrong[16:24] = struct.pack(">II", 65535, 65535)
    yield Case("png, 65,535 x 65,535, wrong checksum", bytes(wrong), Expect.FAILS)
    bomb = zlib.compress(bytes(50_000_000), 9)
    text, profile = png_chunk(b"zTXt", b"k\0\0" + bomb), png_chunk(b"iCCP", b"k\0\0" + bomb)
    yield Case("png, 50 MB of compressed text", png(32, 24, lines, text))
    yield Case("png, 50 MB of compressed profile", png(32, 24, lines, profile))
    yield Case("png, 50 MB behind the last line", png(32, 24, bomb), Expect.DECODES)
    yield Case("jpeg, 65,500 x 65,500", jpeg_of_size(jpeg, 65500, 65500), Expect.FAILS, "limit")
    yield Case("jpeg, no pixels", jpeg_of_size(jpeg, 0, 0), Expect.FAILS)
    yield Case("gif, screen of 65,535 x 65,535", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], Expect.FAILS, "limit")
    yield Case("gif, frame larger than its screen", gif.replace(b",\0\0\0\0\x20\0", b",\0\0\0\0\xff\xff", 1))
    yield Case("gif, frame at 65,535", gif.replace(b",\0\0\0\0\x20\0", b",\xff\xff\xff\xff\x20\0", 1), Expect.FAILS)
    head, frame = gif[: gif.index(b",\0\0\0\0")], gif[gif.index(b",\0\0\0\0") : -1]
    yield Case("gif, 50,000 frames", head + frame * 50_000 + b";", Expect.DECODES)
    yield Case("gif, no frame", head + b";", Expect.FAILS)
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\xff\xff" * 2
    body = b"WEBP" + canvas + webp[12:]
    yield Case("webp, canvas of 16,777,216 squared", b"RIFF" + struct.pack("<I", len(body)) + body, Expect.FAILS)
    yield Case("webp, longer than it is", webp[:4] + b"\xff\xff\xff\x7f" + webp[8:], Expect.FAILS)
    bmp = saved(small, "BMP")
    yield Case("bmp, 2,147,483,647 high", bmp[:22] + b"\xff\xff\xff\x7f" + bmp[26:], Expect.FAILS)
    yield Case("bmp, upside down", bmp[:22] + struct.pack("<i", -24) + bmp[26:], Expect.DECODES)
    tiff = saved(small, "TIFF")
    width = struct.pack("<HHII", 256, 4, 1, 32)
    yield Case("tiff, wider than its strips", tiff.replace(width, width[:-4] + b"\xff\xff\0\0", 1), Expect.FAILS)
    loop = bytearray(tiff)
    loop[-4:] = tiff[4:8]
    yield Case("tiff, a directory that leads to itself", bytes(loop))
    yield Case("ppm, 60,000 x 60,000", b"P6\n60000 60000\n255\n" + bytes(99), Expect.FAILS, "limit")
    yield Case("ppm, a size that never ends", b"P6\n" + b"1" * 100_000, Expect.FAILS)
    yield Case("two jpegs in a row", jpeg + jpeg, Expect.DECODES)
    yield Case("a jpeg before a zip", jpeg + b"PK\x03\x04" + bytes(500), Expect.DECODES)


def jpeg_of_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG that states another size (T.81, B.2.2)."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def wav(rate: int, channels: int, bits: int, claimed: int, body: bytes, code: int = 1) -> bytes:
    """A WAV file whose header says what it is told to."""
    align = max(1, channels * bits // 8) & 0xFFFF
    words = (code, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    head = b"fmt " + struct.pack("<IHHIIHH", 16, *words) + b"data" + struct.pack("<I", claimed)
    return b"RIFF" + struct.pack("<I", claimed + 36 & 0xFFFFFFFF) + b"WAVE" + head + body


def _recordings() -> Iterator[Case]:
    body = tone(1.0, 8000).tobytes()
    yield Case("wav", wav(8000, 1, 16, len(body), body), Expect.DECODES)
    yield Case("wav, 4 GB claimed", wav(8000, 1, 16, 0xFFFFFFFE, body))
    yield Case("wav, an hour claimed", wav(8000, 1, 16, 8000 * 2 * 3599, body))
    yield Case("an hour at 1 MHz, all but its ends missing", far_apart(3599, 1_000_000), Expect.FAILS, "samples")
    yield Case("wav, one byte a second", wav(1, 1, 8, len(body), body), Expect.FAILS, "cannot be true")
    yield Case("wav, no rate", wav(0, 1, 16, len(body), body), Expect.FAILS)
    yield Case("wav, 65,535 channels", wav(8000, 65535, 16, len(body), body), Expect.FAILS)
    yield Case("wav, no channel", wav(8000, 0, 16, len(body), body))
    yield Case("wav, no bits", wav(8000, 1, 0, len(body), body))
    yield Case("wav, 65,535 bits", wav(8000, 1, 65535, len(body), body))
    yield Case("wav, no data", wav(8000, 1, 16, 0, b""), Expect.FAILS)
    yield Case("wav, one sample", wav(8000, 1, 16, 2, b"\1\2"), Expect.DECODES)
    yield Case("wav, an unknown code", wav(8000, 1, 16, len(body), body, code=0x7777), Expect.FAILS)
    yield Case("wav, half a sample", wav(8000, 2, 16, 4001, body[:4001]), Expect.DECODES)
    yield Case("wav, numbers that are none", wav(8000, 1, 32, 4000, b"\xff" * 4000, code=3), Expect.FAILS, "finite")
    mp3 = audio_file(tone(0.5), codec="libmp3lame", container="mp3")
    yield Case("two mp3s in a row", mp3 + mp3)
    yield Case("mp3 tag of 256 MB", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3)
    flac = bytearray(audio_file(tone(0.5), codec="flac", container="flac"))
    flac[21:26] = b"\x0b\xff\xff\xff\xff"  # the low bits of the number of samples, 36 in all (RFC 9639, 8.2)
    yield Case("flac, 68 billion samples claimed", bytes(flac))


def far_apart(seconds: int, rate: int) -> bytes:
    """A Matroska file of some kB: pieces of sound 40 s apart, the last `seconds` after the first."""
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=rate, layout="mono")
        for begin in (at * rate for at in (*range(0, seconds, 40), seconds)):
            frame = av.AudioFrame.from_ndarray(tone(0.01, 8000)[np.newaxis], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def patched(data: bytes, box: bytes, at: int, value: bytes, which: int = 0) -> bytes:
    """An MP4 with bytes overwritten `at` bytes into the `which`-th box of a type."""
    begin = [offset for kind, offset, _ in mp4_boxes(data) if kind == box][which] + at
    return data[:begin] + value + data[begin + len(value) :]


def _videos() -> Iterator[Case]:
    size = (64, 48)
    whole = video(TIMES, audio=tone(1.0))
    big = struct.pack(">I", 0xFFFFFFFF)
    for box in (b"moov", b"trak", b"mdia", b"stbl", b"stsz", b"mdat"):
        for claimed in (0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF):
            yield Case(
                f"mp4, box {box.decode()} of {claimed} bytes", patched(whole, box, 0, struct.pack(">I", claimed))
            )
    yield Case("mp4, no time base of the file", patched(whole, b"mvhd", 20, bytes(4)))
    yield Case("mp4, no time base of the stream", patched(whole, b"mdhd", 20, bytes(4)))
    yield Case("mp4, 4,294,967,295 ticks a second", patched(whole, b"mdhd", 20, big))
    yield Case(
        "mp4, 49 days claimed", patched(patched(whole, b"mdhd", 24, b"\xff\xff\xff\xfe"), b"mdhd", 20, b"\0\0\3\xe8")
    )
    yield Case("mp4, frames with no duration (0 fps)", patched(whole, b"stts", 20, bytes(4)))
    yield Case("mp4, frames of 4,294,967,295 ticks", patched(whole, b"stts", 20, big))
    yield Case("mp4, 4,294,967,295 samples", patched(whole, b"stsz", 16, big))
    yield Case("mp4, 4,294,967,295 chunks", patched(whole, b"stco", 12, big))
    yield Case("mp4, media before the file", patched(whole, b"stco", 16, b"\0\0\0\1"))
    yield Case("mp4, media behind the file", patched(whole, b"stco", 16, b"\x7f\xff\xff\xff"))
    yield Case("mp4, a codec of no name", patched(whole, b"stsd", 20, b"zzzz"), Expect.FAILS)
    yield Case("mp4, another codec's name", patched(whole, b"stsd", 20, b"hvc1"), Expect.FAILS)
    yield Case("mp4, 65,535 x 65,535 in its sample entry", patched(whole, b"stsd", 48, b"\xff\xff\xff\xff"))
    yield Case("mp4, no parameter sets", whole.replace(b"avcC", b"avcX", 1), Expect.FAILS)
    yield Case("mp4, named as another kind of file", b"\xff\xd8\xff\xe0" + whole[4:])
    yield Case("mp4, nothing but its index", whole[: whole.index(b"mdat") - 4] + whole[whole.index(b"moov") - 4 :])
    yield Case("mp4, twice", whole + whole, Expect.DECODES)
    yield Case("mp4, behind a jpeg", saved(Image.fromarray(flat(7, size)), "JPEG") + whole, Expect.DECODES)
    for name, data in good_videos().items():
        yield Case(name, data, Expect.DECODES)
    later = video(TIMES, options={"g": "250", "bf": "0", "x264-params": "intra-refresh=1:scenecut=0"}, container="h264")
    key = [at for at in range(len(later) - 4) if later[at : at + 3] == b"\0\0\1" and later[at + 3] & 31 == 1]
    begin = later.index(b"\0\0\1\x67")
    slices = later.index(b"\0\0\1\x65") if b"\0\0\1\x65" in later else key[0]
    yield Case("h264, no key frame", later[begin:slices] + later[key[4] :])
    none = video(TIMES, container="matroska", options={"g": "5", "bf": "0"}, images=moving(25, size))
    blocks = [at for at in range(len(none)) if none[at] == 0xA3 and none[at + 3 : at + 4] == b"\x81"]
    yield Case(
        "matroska, from the middle of its frames on", none[: none.index(b"\x1f\x43\xb6\x75")] + none[blocks[7] :]
    )
    for hours, expected in ((23, Expect.DECODES), (27, Expect.FAILS)):
        data = video([0, 40, 80, 120, hours * 3_600_000], container="matroska")
        yield Case(f"matroska, a frame shown for {hours} hours", data, expected, "24 are refused")


def good_videos() -> dict[str, bytes]:
    """Odd ones that are right all the same; `test_media_truth` says what they show."""
    return {
        "one frame": video([0]),
        "two frames far apart": video([0, 5000]),
        "variable frame rate": video([0, 10, 20, 300, 310, 700, 1000], options={"bf": "2", "g": "3"}),
        "10 bits": video(TIMES, pix_fmt="yuv420p10le", codec="libx265"),
        "rotated": video(TIMES, rotation=(90, False, False)),
        "odd size": video(TIMES, size=(63, 47), pix_fmt="yuv444p"),
        "2 x 2": video(TIMES, size=(2, 2)),
        "no sound": video(TIMES),
        "sound longer than the video": video(TIMES, audio=tone(3.0)),
        "sound shorter than the video": video(TIMES, audio=tone(0.2)),
        "sound that begins late": video(TIMES, audio=tone(0.5), audio_at=Fraction(1, 2)),
        "negative time stamps": video(range(-400, 600, 40), container="mpegts", muxer=AS_IT_IS),
        "a size that changes": video(TIMES, container="h264", options={"bf": "0"})
        + video(TIMES, size=(48, 64), container="h264", options={"bf": "0"}),
        "two video streams": two_videos(),
        "an attached picture": with_cover(),
    }


AS_IT_IS = {"avoid_negative_ts": "disabled"}


def two_videos(disposition: int | None = None) -> bytes:
    """Two streams: 64 x 48, grey, and 32 x 32, white; `disposition` is the default flag of the first (0 clears it)."""
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        streams = []
        for width, height in ((64, 48), (32, 32)):
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        if disposition is not None:
            from av.stream import Disposition

            streams[0].disposition = Disposition(disposition)
            streams[1].disposition = Disposition.default
        for i in range(25):
            for stream, pixels in zip(streams, (flat(i, (64, 48)), np.full((32, 32, 3), 255, np.uint8)), strict=True):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return out.getvalue()


def with_cover() -> bytes:
    """A video of grey frames, and a red image that is attached to it, first in the file."""
    from av.stream import Disposition

    out = BytesIO()
    with av.open(out, "w", format="mp4") as file:
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 128, 128, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        red = av.VideoFrame.from_ndarray(np.full((128, 128, 3), (255, 0, 0), np.uint8), format="rgb24")
        red = red.reformat(format="yuvj420p")
        red.pts, red.time_base = 0, Fraction(1, 1)
        file.mux(cover.encode(red))
        file.mux(cover.encode(None))
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(flat(i, (64, 48)), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def _heavy() -> Iterator[Case]:
    lines = zlib.compress(bytes((13_000 // 8) * 13_000 + 13_000), 9)
    yield Case("png, 169 million pixels in 21 kB", png(13_000, 13_000, lines), Expect.DECODES)
    palette = png_chunk(b"PLTE", bytes(6)) + png_chunk(b"tRNS", b"\0\x80")
    alpha = png(13_000, 13_000, lines, palette, colour=3)
    yield Case("png, 169 million pixels with alpha", alpha, Expect.DECODES)
    yield Case("h264, 12,000 x 12,000", huge_frames(2, 12_000), Expect.FAILS, "limit of 67108864")
    yield Case("h264, 300 frames of 8,192 x 8,192", huge_frames(300, 8192))
    yield Case("mp4, an index of 80 million samples", endless_index(80_000_000), Expect.FAILS)
    yield Case("jpeg, 4,000 scans of 8,000 x 8,000", slow_jpeg(4000), Expect.FAILS, "limit")


def endless_index(samples: int) -> bytes:
    """An MP4 of 2 kB whose index says that it holds `samples` frames of one byte: FFmpeg takes 24 bytes for each as it
    opens the file."""
    data = video(TIMES, options={"bf": "0"})
    data = patched(data, b"stsz", 12, struct.pack(">II", 1, samples))
    data = patched(data, b"stsc", 16, struct.pack(">II", 1, samples))
    return patched(data, b"stts", 16, struct.pack(">I", samples))


def slow_jpeg(scans: int, side: int = 8000) -> bytes:
    """A progressive JPEG of some 100 bytes a scan, each of which makes the decoder go over all `side` x `side` pixels
    (25 ms at 8000).

    Nothing inside the decoder looks at a clock: it must be stopped from outside.
    """
    data = saved(Image.new("L", (side, side)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * scans + data[-2:]


def huge_frames(n: int, side: int) -> bytes:
    """A bare H.264 stream of `n` black frames of `side` x `side`; all but the first cost 20 bytes."""
    out = BytesIO()
    with av.open(out, "w", format="h264") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for i in range(2):
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    data = out.getvalue()
    return data + data[data.rindex(b"\0\0\1") :] * (n - 2)
