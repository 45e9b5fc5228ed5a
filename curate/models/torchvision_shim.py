"""Make `import torchvision` work beside a CPU build of torch.

The package index carries torchvision built for CUDA. Beside a CPU torch its C++ library does not load, the operators
that it would declare are missing, and `import torchvision` (hence timm, open_clip and transformers' vision models)
fails with "operator torchvision::nms does not exist". Declaring the operators is enough for all that curate uses but
SAM's mask generation, which calls `nms`: that one gets an implementation in PyTorch. Where torchvision works, nothing
is touched.
"""

from __future__ import annotations

import importlib
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = None  # kept alive: the declarations vanish with it


def ensure_torchvision() -> None:
    """Import torchvision, declaring its missing operators first where that is what stops it.

    Call it before importing open_clip, timm or transformers' vision models, once in each process or more often.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision fails for any other reason.
    """
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as exc:
        if "operator torchvision::" not in str(exc) or _library is not None:
            raise
        import torch

        declare: Any = torch.library.Library
        library = declare("torchvision", "FRAGMENT")
        for schema in _OPERATORS:
            library.define(schema)
        library.impl("nms", nms, "CompositeExplicitAutograd")
        _library = library
        importlib.import_module("torchvision")
        boxes: Any = importlib.import_module("torchvision.ops.boxes")
        boxes._assert_has_ops = lambda: None  # it asks for the C++ library, not for the operator


def nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy non-maximum suppression, as `torchvision.ops.nms` documents it.

    Args:
        dets: boxes x0, y0, x1, y1, float `(n, 4)`. scores: `(n,)`.

    Returns:
        int64 indices of the boxes that stay, by falling score: those that overlap none of a higher score by more than
        `iou_threshold` of their union.
    """
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low, high = torch.maximum(dets[best, :2], dets[rest, :2]), torch.minimum(dets[best, 2:], dets[rest, 2:])
        shared = (high - low).clamp_min(0).prod(1)
        order = rest[shared <= iou_threshold * (area[best] + area[rest] - shared)]
    return torch.stack(kept) if kept else order
