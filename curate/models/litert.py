"""TensorFlow Lite models through LiteRT, which is an optional package."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import digest


class LiteRTModel:
    """A model of one input and one output, on one thread.

    Raises:
        CurateError: LiteRT is not installed, or the file is no such model.
    """

    def __init__(self, weights: str) -> None:
        path = Path(weights).expanduser()
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise CurateError(f"the weights {path} cannot be read: {error}", "give a .tflite file") from error
        try:
            interpreter = importlib.import_module("ai_edge_litert.interpreter")
        except ImportError as error:
            raise CurateError(
                f"{path.name} runs with LiteRT, which is not installed", "pip install 'curate-tokens[litert]'"
            ) from error
        try:
            self._net: Any = interpreter.Interpreter(model_content=raw, num_threads=1)
            self._net.allocate_tensors()
            (self._in,), (self._out,) = self._net.get_input_details(), self._net.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise CurateError(f"{path.name} is no LiteRT model of one input and one output: {error}") from error
        self.digest = digest(raw)

    def expect(self, shape: tuple[int, ...], dtype: type[np.generic], out: tuple[int, ...]) -> None:
        """CurateError where input shape and dtype or output shape are others."""
        got = (tuple(self._in["shape"]), np.dtype(self._in["dtype"]), tuple(self._out["shape"]))
        if got != (shape, np.dtype(dtype), out):
            raise CurateError(f"the model takes {got[1]} {got[0]} and gives {got[2]}; {shape} to {out} expected")

    def __call__(self, value: NDArray[Any]) -> NDArray[Any]:
        self._net.set_tensor(self._in["index"], value)
        self._net.invoke()
        return np.array(self._net.get_tensor(self._out["index"]))
