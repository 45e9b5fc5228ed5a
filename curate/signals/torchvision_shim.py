"""Make `import torchvision` work beside a CPU build of torch.

The package index carries torchvision built for CUDA. Beside a CPU torch its C++ library does not load, the operators
that it would declare are missing, and `import torchvision` (hence timm, open_clip and transformers' vision models)
fails with "operator torchvision::nms does not exist". Declaring the operators is enough for all that curate uses;
none of it calls them. Where torchvision works, nothing is touched.
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
        _library = library
        importlib.import_module("torchvision")
