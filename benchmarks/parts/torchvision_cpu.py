"""A torchvision that was built for CUDA, beside a torch for CPUs, in environments of peers."""

from __future__ import annotations

import subprocess
from pathlib import Path

DECLARED = """\
import torch as _torch
_declared = _torch.library.Library("torchvision", "FRAGMENT")
_declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def mend_torchvision(programs: Path) -> None:
    """A torchvision that was built for CUDA does not load beside a torch for CPUs, for want of two operators that no
    peer calls: there they are declared, in the installed file, so that it costs nothing where it is not imported."""
    found = subprocess.run([programs / "python", "-c", "import torchvision"], capture_output=True, text=True)
    if "torchvision::nms does not exist" in found.stderr:
        [module] = programs.parent.glob("lib/python*/site-packages/torchvision/__init__.py")
        module.write_text(DECLARED + module.read_text())
