"""Which class a stream is of: a torch data set where torch is, else the same without torch."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

from curate.schema.errors import CurateError
from curate.shards.place import Place


def maker(plain: type[Place], tensors: bool) -> Any:
    """What makes a stream of that class: called as the class is.

    Raises:
        CurateError: tensors are asked for, and there is no torch.
    """
    if find_spec("torch") is None:
        if tensors:
            raise CurateError("there is no torch to make tensors with", "pip install torch, or leave tensors out")
        return plain
    from curate.shards.torch_streams import KINDS

    return partial(KINDS[plain], tensors=tensors)
