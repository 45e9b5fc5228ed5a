"""4M's masked any-to-any view (Mizrahi et al. 2023, arXiv 2312.06647, section 2.3; Bachmann et al. 2024, 4M-21).

For each sample the numbers of input and of target tokens are drawn; each is shared out over the streams that the
sample has by a symmetric or weighted Dirichlet draw; of a grid, disjoint even draws of positions become input and
target; of a text, spans are masked, with sentinels in the input and sentinel-led spans in the target (T5). What this
view does otherwise than the published code: a stream the sample lacks takes no share, a grid keeps at least one
position for the target, and spans are merged where a text would need more sentinels than its tokenizer has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.shards.draw import Draw, FrameCap, caps, check_names, window
from curate.shards.rows import Ints, Rows

_SENTINEL = re.compile(r"\[S_(\d+)\]")
_END = "[EOS]"
_KEEP_DECAY = 0.9  # as 4M lowers the kept share of a text until it fits its budget

Budget = int | tuple[int, int]
Alpha = float | Mapping[str, float]


@dataclass(frozen=True)
class MaskedView:
    """Random inputs, random targets, fixed sizes.

    A sample is a dict of `sample_id` and, with I and O the upper ends of the two budgets,

        input_ids, input_positions, input_streams     int64 (I,)
        input_mask                                    bool (I,), True where there is a token
        target_ids, target_positions, target_streams  int64 (O,)
        target_mask                                   bool (O,)

    Ids are the stream's own (no offsets); `*_streams` is the stream's place in the manifest; positions count the
    sample's ids in C order, of a text the tokens of the masked input or target. Where a mask is False all is 0.
    A sample that has none of the streams is not left out: its masks are all False. A batch stacks samples.

    Attributes:
        input_tokens, target_tokens: tokens of a sample, a number or a closed range to draw evenly from.
        alpha: Dirichlet concentration of the input shares, one for all streams or one each; streams that a mapping
            leaves out, or names with 0, are never input.
        target_alpha: the same for targets; as `alpha` where None.
        frames: most steps shown of a sample (see `FrameCap`); a window drawn evenly, positions count from its start.
    """

    input_tokens: Budget = 256
    target_tokens: Budget = 256
    alpha: Alpha = 1.0
    target_alpha: Alpha | None = None
    frames: FrameCap = None

    def bind(self, manifest: Manifest) -> MaskedBound:
        alpha_in = _alphas(manifest, self.alpha, "alpha")
        target = self.alpha if self.target_alpha is None else self.target_alpha
        alpha_out = _alphas(manifest, target, "target_alpha")
        limit = caps(manifest, self.frames)
        streams = []
        for place, entry in enumerate(manifest.streams):
            if not alpha_in[entry.name] and not alpha_out[entry.name]:
                continue
            if not entry.vocabulary:
                raise CurateError(f"{entry.name!r} holds features, not ids", "give it alpha 0; RawView shows it")
            card = manifest.codecs.get(entry.tokenizer)
            special = card.special_tokens if card and entry.modality == "text" else {}
            numbered = sorted((int(m[1]), i) for name, i in special.items() if (m := _SENTINEL.fullmatch(name)))
            sentinels = np.array([i for _, i in numbered], np.int64)
            streams.append(
                MaskedStream(
                    entry.name,
                    place,
                    alpha_in[entry.name],
                    alpha_out[entry.name],
                    limit[entry.name],
                    sentinels if len(sentinels) > 1 else None,
                    special.get(_END),
                )
            )
        return MaskedBound(
            _range(self.input_tokens, "input_tokens"), _range(self.target_tokens, "target_tokens"), tuple(streams)
        )


@dataclass(frozen=True)
class MaskedStream:
    """How one stream is masked: as text where `sentinels` are given, else as a grid of positions."""

    name: str
    place: int
    alpha_in: float
    alpha_out: float
    cap: int | None
    sentinels: Ints | None
    end: int | None


@dataclass(frozen=True)
class MaskedBound:
    """`MaskedView` of one build."""

    input_range: tuple[int, int]
    target_range: tuple[int, int]
    masked: tuple[MaskedStream, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.masked)

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        sample_id = rows.keys["sample_id"][i]
        rng = draw.rng(sample_id)
        at = float(rng.random())
        n_in = int(rng.integers(*self.input_range, endpoint=True))
        n_out = int(rng.integers(*self.target_range, endpoint=True))
        present: list[tuple[MaskedStream, Ints]] = []
        for stream in self.masked:
            ids = rows.streams[stream.name][i]
            if ids is None:
                continue
            flat = window(ids, stream.cap, at).reshape(-1).astype(np.int64)
            if stream.sentinels is not None and stream.end is not None:
                flat = np.append(flat, stream.end)
            if len(flat):
                present.append((stream, flat))
        # A grid's input leaves a position for the target; a text's target has at least its last sentinel anyway.
        room_in = [len(ids) - (s.sentinels is None and s.alpha_out > 0) for s, ids in present]
        shares_in = share_out(rng, n_in, [s.alpha_in for s, _ in present], room_in)
        room_out = [
            n_out if s.sentinels is not None else len(ids) - k for (s, ids), k in zip(present, shares_in, strict=True)
        ]
        shares_out = share_out(rng, n_out, [s.alpha_out for s, _ in present], room_out)
        inputs, targets = [], []
        for (stream, ids), k_in, k_out in zip(present, shares_in, shares_out, strict=True):
            if stream.sentinels is not None:
                one, other = mask_text(rng, ids, stream.sentinels, k_in, k_out)
                inputs.append((stream.place, one, np.arange(len(one))))
                targets.append((stream.place, other, np.arange(len(other))))
            else:
                picked = rng.choice(len(ids), k_in + k_out, replace=False)
                one, other = np.sort(picked[:k_in]), np.sort(picked[k_in:])
                inputs.append((stream.place, ids[one], one))
                targets.append((stream.place, ids[other], other))
        return {
            "sample_id": sample_id,
            **_fill("input", inputs, self.input_range[1]),
            **_fill("target", targets, self.target_range[1]),
        }

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        samples = [self.sample(rows, i, draw) for i in range(len(rows))]
        out: dict[str, Any] = {"sample_id": rows.keys["sample_id"]}
        out.update({k: np.stack([s[k] for s in samples]) for k in samples[0] if k != "sample_id"})
        return out


def share_out(rng: np.random.Generator, total: int, alphas: list[float], room: list[int]) -> list[int]:
    """Share `total` tokens out by a Dirichlet draw; what rounding leaves over goes to the largest of a fresh draw each,
    and what a stream has no room for is not given to another (as in 4M).

    Returns:
        One count a stream, 0 <= count <= room; 0 where alpha is 0.
    """
    live = np.flatnonzero(np.array(alphas, np.float64) > 0)
    out = np.zeros(len(alphas), np.int64)
    if not len(live):
        return [0] * len(alphas)
    alpha = np.array(alphas, np.float64)[live]
    counts = np.floor(rng.dirichlet(alpha) * total).astype(np.int64)
    rest = total - int(counts.sum())
    counts += np.bincount(rng.dirichlet(alpha, size=rest).argmax(axis=1), minlength=len(live)) if rest > 0 else 0
    out[live] = counts
    return [int(n) for n in np.minimum(out, room)]


def mask_text(
    rng: np.random.Generator, ids: Ints, sentinels: Ints, input_budget: int, target_budget: int
) -> tuple[Ints, Ints]:
    """Span-masked text: input with a sentinel for each masked span, target with each sentinel and its span.

    The kept share is drawn evenly from [0, 1] and lowered until the input fits; without an input budget all is masked
    and the input is empty. A target that is too long starts at a sentinel drawn evenly, or at the first one from which
    the rest fits, and is cut to the budget.

    Args:
        ids: int64 `(n,)`, n >= 1.
        sentinels: ids of [S_0], [S_1], ...; at least 2.
    """
    share = float(rng.uniform()) if input_budget else 0.0
    noise = rng.uniform(size=len(ids))
    keep = noise < share
    while _input_length(keep) > input_budget or _spans(keep) >= len(sentinels):
        if not keep.any():
            break
        share *= _KEEP_DECAY
        keep = noise < share
    one, other, heads = masked_spans(ids, keep, sentinels)
    if len(other) > target_budget:
        chosen = int(heads[int(rng.integers(max(1, len(heads) - 1)))])
        if len(other) - chosen < target_budget:
            chosen = int(heads[len(other) - heads <= target_budget][0])
        other = other[chosen : chosen + target_budget]
    return (one if input_budget else one[:0]), other


def masked_spans(ids: Ints, keep: NDArray[np.bool_], sentinels: Ints) -> tuple[Ints, Ints, Ints]:
    """Input, target, and where sentinels stand in the target. The target ends with one more sentinel (T5)."""
    hidden = ~keep
    starts = hidden & np.concatenate(([True], keep[:-1]))
    number = np.cumsum(starts) - 1
    spans = int(starts.sum())
    one = np.where(starts, sentinels[number], ids)[keep | starts]
    before = (np.cumsum(hidden) - 1)[starts]
    other = np.append(np.insert(ids[hidden], before, sentinels[:spans]), sentinels[spans])
    return one, other, np.append(before + np.arange(spans), len(other) - 1)


def _spans(keep: NDArray[np.bool_]) -> int:
    return int((~keep & np.concatenate(([True], keep[:-1]))).sum())


def _input_length(keep: NDArray[np.bool_]) -> int:
    return int(keep.sum()) + _spans(keep)


def _fill(side: str, parts: list[tuple[int, Ints, Ints]], size: int) -> dict[str, NDArray[Any]]:
    n = sum(len(ids) for _, ids, _ in parts)
    out: dict[str, NDArray[Any]] = {
        f"{side}_{what}": np.zeros(size, np.int64) for what in ("ids", "positions", "streams")
    }
    at = 0
    for place, ids, positions in parts:
        stop = at + len(ids)
        out[f"{side}_ids"][at:stop] = ids
        out[f"{side}_positions"][at:stop] = positions
        out[f"{side}_streams"][at:stop] = place
        at = stop
    out[f"{side}_mask"] = np.arange(size) < n
    return out


def _range(budget: Budget, what: str) -> tuple[int, int]:
    low, high = budget if isinstance(budget, tuple) else (budget, budget)
    if not 1 <= low <= high:
        raise CurateError(f"{what}: {budget} is not a number or a range of at least 1")
    return low, high


def _alphas(manifest: Manifest, alpha: Alpha, what: str) -> dict[str, float]:
    if isinstance(alpha, Mapping):
        check_names(manifest, list(alpha), what)
        out = {s.name: float(alpha.get(s.name, 0)) for s in manifest.streams}
    else:
        out = {s.name: float(alpha) if s.vocabulary else 0.0 for s in manifest.streams}
    if any(a < 0 for a in out.values()) or not any(out.values()):
        raise CurateError(f"{what}: concentrations must not be negative, and some stream needs one above 0")
    return out
