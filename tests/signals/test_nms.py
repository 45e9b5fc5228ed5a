"""The operator that stands in where torchvision's C++ library does not load."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.models.torchvision_shim import ensure_torchvision, nms


def test_the_lesser_of_two_that_overlap_goes_and_one_apart_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])  # the first two share 90 of 110
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert nms(boxes, scores, 0.7).tolist() == [1, 2]
    assert nms(boxes, scores, 0.9).tolist() == [1, 0, 2]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


@given(st.integers(0, 12), st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=60)
def test_what_stays_overlaps_little_and_what_goes_overlaps_a_better_one(count: int, seed: int, most: float) -> None:
    ensure_torchvision()
    from torchvision.ops import box_iou
    from torchvision.ops import nms as through_torchvision

    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 10
    boxes = torch.cat([corner, corner + torch.rand(count, 2, generator=draw) * 10 + 0.1], 1)
    scores = torch.rand(count, generator=draw)
    kept = through_torchvision(boxes, scores, most).tolist()
    overlap = box_iou(boxes, boxes)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    for place, i in enumerate(kept):
        assert all(overlap[i, j] <= most + 1e-5 for j in kept[:place])
    for i in set(range(count)) - set(kept):
        assert any(overlap[i, j] > most - 1e-5 and scores[j] >= scores[i] for j in kept)
