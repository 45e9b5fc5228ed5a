"""Arrays of numbers in `.npy` files: rasters, masks, poses, whatever a tokenizer of one's own takes."""

from __future__ import annotations

import io
import math
import tokenize

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from curate.media.sniff import named
from curate.schema.errors import MediaError

MAX_BYTES = 256 << 20
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)
_MAX_AXES = 16  # what the wire between processes takes
_MAX_HEADER = 10_000  # characters; numpy's own limit, since a longer one may crash the parser


def is_array(data: bytes) -> bool:
    """True if data begin as `.npy` files do."""
    return data.startswith(npy.MAGIC_PREFIX)


def read_array(data: bytes, name: str = "") -> NDArray[np.generic]:
    """The array of a `.npy` file (versions 1 and 2): in C order, of the machine's byte order, read-only or not.

    Nothing is unpickled, and no room is set aside for what a header says before the bytes are known to be there.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        MediaError: no `.npy`, a header that cannot be read, a dtype that is not of `DTYPES` (Python objects, records,
            text, complex numbers), more than `MAX_BYTES` or 16 axes, no values, or not as many bytes as it says.
    """
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = read(file, max_header_size=_MAX_HEADER)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as exc:
        why = " ".join(str(exc).split())[:200]
        raise MediaError(named(name, f"is an array (.npy) whose header cannot be read: {why}")) from exc
    if dtype.hasobject:
        raise MediaError(named(name, "is an array (.npy) of pickled Python objects, which are never read"))
    if dtype.name not in DTYPES:
        raise MediaError(named(name, f"is an array (.npy) of {dtype}, which is not read: its values must be numbers"))
    if len(shape) > _MAX_AXES or any(n < 0 for n in shape):
        raise MediaError(named(name, f"is an array (.npy) of an impossible shape or of more than {_MAX_AXES} axes"))
    said, there = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if said > MAX_BYTES:
        raise MediaError(named(name, f"is an array (.npy) of {said} bytes by its header, more than {MAX_BYTES}"))
    if said != there:
        raise MediaError(named(name, f"is an array (.npy) of {said} bytes by its header, but holds {there}"))
    if not said:
        raise MediaError(named(name, "is an array (.npy) without a value"))
    flat = np.frombuffer(data, dtype, offset=file.tell())
    array = flat.reshape(shape, order="F" if columns_first else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
