"""ONNX Runtime sessions whose results do not depend on the machine's thread count (law 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def cpu_session(path: Path, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU with `threads` threads in an operator and one operator at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about the machine's devices are not the user's business
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
