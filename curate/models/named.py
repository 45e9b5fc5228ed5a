"""What tells the weights of a model from others, without loading them."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from curate.schema.errors import CurateError

LIBRARIES = 1 << 30
"""Bytes of memory that PyTorch and a library of models take: 0.4 GB as built for CPUs, more with CUDA's libraries."""


def weights_of(source: str, pattern: str = "*.safetensors") -> str:
    """BLAKE3 of the bytes of a local file, or of the weights of a local folder; else the hub id as it is.

    Args:
        pattern: glob of the weights in a folder.

    Raises:
        CurateError: it is a path, and nothing lies there.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1 or path.suffix in _FILES:
            raise CurateError(f"the weights {source} do not exist", "give a file, a folder, or a hub id as owner/name")
        return source
    hasher = blake3()
    for file in sorted(path.glob(pattern)) if path.is_dir() else [path]:
        hasher.update_mmap(file)
    return hasher.hexdigest()


def check_source(source: str, pattern: str = "*.safetensors") -> str | None:
    """None where the weights lie on this machine; where they will be fetched from the hub, a sentence that says so.

    Args:
        source: a file, a folder, or a hub id.
        pattern: glob of the weights in a folder.

    Raises:
        CurateError: they are not there, and cannot be had from the hub.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not any(path.glob(pattern)):
            raise CurateError(f"no weights in {source}", f"looked for {pattern}")
        return None
    if path.exists():
        return None
    weights_of(source, pattern)  # refuses a path
    from curate.models.hub import check_hub

    return check_hub(source, [pattern])


def bytes_of(source: str, pattern: str = "*.safetensors") -> int:
    """Bytes of the weights that lie on this machine; 0 of a hub id, whose are not known before they are fetched."""
    path = Path(source).expanduser()
    return sum(file.stat().st_size for file in (path.glob(pattern) if path.is_dir() else [path]) if file.is_file())


_FILES = (".onnx", ".tflite", ".safetensors")
