"""Things in an image, with their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.signals.labels import BoxOptions, label_field, middle, number
from curate.signals.model_signals import SeenSignal


def box_fields(name: str, things: str) -> tuple[SignalField, ...]:
    """The fields of a detector."""
    return (
        label_field(name, "boxes", f"{things} in the middle frame with their places and scores, the best first."),
        number(f"{name}_count", "count", None, f"How many {things.lower()} there are."),
        number(f"{name}_score", "score", 1, f"Score of the best of the {things.lower()}; null where there is none."),
    )


def box_values(name: str, boxes: list[dict[str, Any]]) -> dict[str, Any]:
    """Values of `box_fields`; boxes are the best first."""
    best = boxes[0]["score"] if boxes else None
    return {name: boxes, f"{name}_count": len(boxes), f"{name}_score": best}


class BoxesOptions(BoxOptions):
    """Options of `boxes`.

    Attributes:
        source: local folder or hub id.
        names: classes that are kept; empty: all.
    """

    source: str
    names: tuple[str, ...] = ()


class Boxes(SeenSignal):
    """Object detection (`AutoModelForObjectDetection`: DETR, RT-DETR, YOLOS, ...) by transformers."""

    name = "boxes"
    kind = "boxes"
    gives = box_fields("boxes", "Things")
    auto = "AutoModelForObjectDetection"
    Options = BoxesOptions
    options: BoxesOptions

    def load(self) -> None:
        super().load()
        use = self.options
        self.classes = self._model.classes
        if unknown := sorted(set(use.names) - set(self.classes)):
            raise CurateError(f"{use.source} has no classes {', '.join(unknown)}", f"it has {', '.join(self.classes)}")

    def looked_at(self, frames: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        return [middle(frames)]

    def seen(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        said, errors = self._model(images, ["logits", "pred_boxes"])
        # A target size of 1 x 1 gives shares of width and height.
        found = self._model.processor.post_process_object_detection(
            said, threshold=self.options.score, target_sizes=[(1, 1)] * len(images)
        )
        return [error or boxes for boxes, error in zip(found, errors, strict=True)]

    def label(self, frames: NDArray[np.uint8], found: Sequence[Any]) -> dict[str, Any]:
        use, (said,) = self.options, found
        scores = said["scores"].cpu().numpy()
        places = np.clip(said["boxes"].cpu().numpy(), 0, 1)
        names = [self.classes[int(label)] for label in said["labels"].cpu().numpy()]
        order = [i for i in np.argsort(-scores, kind="stable") if not use.names or names[i] in use.names]
        boxes = [box(len(frames) // 2, places[i], names[i], scores[i]) for i in order]
        return box_values("boxes", boxes)


def box(frame: int, place: NDArray[np.floating], name: str, score: float) -> dict[str, Any]:
    """A box as its field has it.

    Args:
        place: x0, y0, x1, y1 as shares of width and height.
    """
    x0, y0, x1, y1 = (float(v) for v in place)
    return {"frame": frame, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "name": name, "score": float(score)}
