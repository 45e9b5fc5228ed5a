"""TorchScript archives, and what is refused of them.

A TorchScript archive holds tensors, and a program in a language of its own that PyTorch compiles and runs. Its pickles
are read by PyTorch's C++ unpickler, which builds the archive's script types only and calls no Python. The program
cannot reach Python either; it can call PyTorch's operators and take any amount of time and memory, and a few operators
touch files. An archive whose code names one of those is refused here. That is a guard, not a sandbox: import archives
only of publishers that you would run a program of.
"""

from __future__ import annotations

import io
import re
import zipfile

import torch

from curate.schema.errors import CurateError

FILE_OPERATORS = re.compile(r"\b(from_file|load_tensor|save)\s*\(")
"""Operators of PyTorch that read or write files: `aten::from_file`, `debugprims::load_tensor`, `aten::save`."""


def load_script(raw: bytes, name: str, device: str = "cpu") -> torch.jit.ScriptModule:
    """The module of a TorchScript archive, in eval mode.

    Args:
        raw: the whole file; the bytes that were verified are those that are run.
        name: for messages.

    Raises:
        CurateError: it is an eager pickle (which is not opened), something else, damaged, or its code touches files.
    """
    check_script(raw, name)
    try:
        module: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(raw), map_location=device
        )
    except RuntimeError as error:
        raise CurateError(f"{name} cannot be loaded as TorchScript: {_first(error)}", "fetch it again") from error
    module.eval()
    return module


def check_script(raw: bytes, name: str) -> None:
    """Looks at the archive without loading it; raises as `load_script`."""
    way_out = "give the TorchScript files (encoder.jit and decoder.jit) that the publisher offers"
    if raw[:1] == b"\x80":
        raise CurateError(
            f"{name} is a pickle, not TorchScript, and is not opened: that would run what it holds", way_out
        )
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = archive.namelist()
            inside = {n.split("/", 1)[1] for n in names if "/" in n}
            code = [n for n in names if "/code/" in n and n.endswith(".py")]
            if "constants.pkl" not in inside or not code:
                if "data.pkl" in inside:
                    what = "a pickle of an eager PyTorch object, not TorchScript, and is not opened"
                    raise CurateError(f"{name} is {what}: that would run what it holds", way_out)
                raise CurateError(f"{name} is a zip file, but not TorchScript: it holds no code", way_out)
            for part in code:
                if found := FILE_OPERATORS.search(archive.read(part).decode("utf-8", "replace")):
                    raise CurateError(f"{name} is refused: its code in {part} calls `{found[1]}`, which touches files")
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise CurateError(f"{name} is not a TorchScript archive: {error}", way_out) from error


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
