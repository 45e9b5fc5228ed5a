"""What bytes that are not media are, in a sentence that a person understands."""

from __future__ import annotations

from curate.media.boxes import boxes
from curate.media.chunks import PNG

_HEAD = 4096

_KNOWN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"FWS", "a Flash animation"),
    (b"CWS", "a Flash animation"),
)

_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (PNG, "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)

_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_AVIF = (b"avif", b"avis")


def refused(data: bytes) -> str | None:
    """Why data that a decoder might open is refused all the same (SVG, PSD, HEIF, empty), or None."""
    if not data:
        return "is empty (0 bytes)"
    if data.startswith(b"8BPS"):
        return "is a Photoshop document (PSD), which is not read: export it as PNG or JPEG"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        brands = data[16 : min(_HEAD, int.from_bytes(data[:4], "big"))]
        if not any(brands[i : i + 4] in _AVIF for i in range(0, len(brands), 4)):
            return "is a HEIF/HEIC image, which is not read: export it as JPEG or AVIF"
    if data.startswith((b"P7\n", b"PF\n")):
        return "is a PAM or PFM image, which is not read: export it as PNG"
    if _is_svg(data):
        return "is an SVG drawing, which has no pixels of its own: render it to PNG first"
    return None


def explain(data: bytes) -> str:
    """What is wrong with data that no decoder could open, as the rest of a sentence that begins with its name."""
    for magic, what in _KNOWN:
        if data.startswith(magic):
            return f"is {what}, not media"
    for magic, what in _IMAGES:
        if data.startswith(magic):
            return unreadable(what)
    found = list(boxes(data))
    if found and found[0].kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        if all(box.kind != b"moov" for box in found):
            return "is an MP4 or MOV that is cut off: its index (the moov box) is missing"
        if not all(box.whole for box in found):
            return "is an MP4 or MOV that is cut off"
    if not data.strip(b"\x00"):
        return "holds nothing but zero bytes"
    if data[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not media"
    text = _text(data)
    if text is not None:
        return f"is {text}, not media"
    return "is not an image, video or audio in a format that is read here, or it is damaged"


def unreadable(kind: str) -> str:
    """That an image of a kind cannot be opened, as the rest of a sentence."""
    return f"is a {kind} image that is damaged or cut off in its header, or of a kind that is not read"


def named(name: str, sentence: str) -> str:
    """The sentence with its subject."""
    return f"{name or 'The file'} {sentence}."


def _text(data: bytes) -> str | None:
    head = data[:_HEAD]
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # a multi-byte character may be cut by the window, not by the file
        if error.start < len(head) - 3 or len(data) <= _HEAD:
            return None
        text = head[: error.start].decode("utf-8")
    if any(ch < " " and ch not in "\t\n\r\f\x1b" for ch in text):
        return None
    return "a playlist (M3U)" if text.lstrip("\ufeff").startswith("#EXTM3U") else "a text file"


def _is_svg(data: bytes) -> bool:
    head = data[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in head
