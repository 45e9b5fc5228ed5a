"""ONNX Runtime sessions whose results do not depend on the machine's thread count (law 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.schema.errors import CurateError

CUDA = "CUDAExecutionProvider"


def cpu_session(path: Path, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU with `threads` threads in an operator and one operator at a time."""
    return _session(path, threads, ["CPUExecutionProvider"])


def session_on(path: Path, device: str) -> Any:
    """A session on `cpu`, as `cpu_session`, or on `cuda`, in full fp32 (no TF32).

    Raises:
        CurateError: the device is a GPU that the installed ONNX Runtime cannot use.
    """
    if device == "cpu":
        return cpu_session(path)
    check_cuda()
    # algorithms by rule, not by timing, which differs from run to run
    how = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
    session = _session(path, 1, [(CUDA, how), "CPUExecutionProvider"])
    check_on_cuda(session)
    return session


def check_cuda() -> None:
    """CurateError where the installed ONNX Runtime knows no GPU; else it has loaded CUDA's libraries, those of wheels
    too."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        raise CurateError(
            f"the installed ONNX Runtime, {onnxruntime.__version__}, runs on CPUs alone",
            "pip install 'curate-tokens[gpu]', then pip uninstall onnxruntime, then pip install --force-reinstall "
            "--no-deps onnxruntime-gpu; or give the model `compute: {device: cpu}`",
        )
    onnxruntime.preload_dlls()


def check_on_cuda(session: Any) -> None:
    """CurateError where ONNX Runtime fell back to the CPU, as it does without a word where CUDA's libraries lack."""
    if session.get_providers()[0] != CUDA:
        raise CurateError(
            "ONNX Runtime cannot use the GPU: CUDA's or cuDNN's libraries lack, or are not of its version",
            "install those that onnxruntime-gpu of this version names, or give the model `compute: {device: cpu}`",
        )


def _session(path: Path, threads: int, providers: list[Any]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about the machine's devices are not the user's business
    return onnxruntime.InferenceSession(str(path), options, providers=providers)
