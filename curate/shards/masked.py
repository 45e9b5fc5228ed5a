"""4M's masked any-to-any view (Mizrahi et al. 2023, arXiv 2312.06647, section 2.3; Bachmann et al. 2024, 4M-21).

For each sample the numbers of input and of target tokens are drawn; each is shared out over the streams that the
sample has by a symmetric or weighted Dirichlet draw; of a grid, disjoint even draws of positions become input and
target; of a text, spans are masked, with sentinels in the input and sentinel-led spans in the target (T5). What this
view does otherwise than the published code: a stream the sample lacks takes no share, a grid keeps at least one
position for the target, and spans are merged where a text would need more sentinels than its tokenizer has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.shards.draw import Draw, FrameCap, caps, check_names
from curate.shards.flat import first_row, flat_ids
from curate.shards.memory import Ints
from curate.shards.rows import Rows

if TYPE_CHECKING:
    from curate.shards.kernels import Masking

_SENTINEL = re.compile(r"\[S_(\d+)\]")
_END = "[EOS]"

Budget = int | tuple[int, int]
Alpha = float | Mapping[str, float]


@dataclass(frozen=True)
class MaskedView:
    """Random inputs, random targets, fixed sizes.

    A sample is a dict of `sample_id` and, with I and O the upper ends of the two budgets,

        input_ids, input_positions, input_streams     int32 (I,)
        input_mask                                    bool (I,), True where there is a token
        target_ids, target_positions, target_streams  int32 (O,)
        target_mask                                   bool (O,)

    Ids are the stream's own (no offsets); `*_streams` is the stream's place in the manifest; positions count the
    sample's ids in C order, of a text the tokens of the masked input or target. Where a mask is False all is 0.
    A sample that has none of the streams is not left out: its masks are all False. A batch stacks samples.

    Attributes:
        input_tokens, target_tokens: tokens of a sample, a number or a closed range to draw evenly from.
        alpha: Dirichlet concentration of the input shares, one for all streams or one each; streams that a mapping
            leaves out, or names with 0, are never input. A list of these is a mixture: each sample draws one (4M-21).
        target_alpha: the same for targets; as `alpha` where None. Of two lists the i-th ones go together.
        weights: how often each of a mixture is drawn; equally often where None.
        most: most tokens of a stream, in the input and in the target, a number for both or a pair; no limit where a
            stream is left out.
        frames: most steps shown of a sample (see `FrameCap`); a window drawn evenly, positions count from its start.
    """

    input_tokens: Budget = 256
    target_tokens: Budget = 256
    alpha: Alpha | Sequence[Alpha] = 1.0
    target_alpha: Alpha | Sequence[Alpha] | None = None
    weights: Sequence[float] | None = None
    most: Mapping[str, Budget] | None = None
    frames: FrameCap = None

    def bind(self, manifest: Manifest) -> MaskedBound:
        alpha_in = _mixture(manifest, self.alpha, "alpha")
        alpha_out = _mixture(manifest, self.alpha if self.target_alpha is None else self.target_alpha, "target_alpha")
        both = max(len(alpha_in), len(alpha_out))
        alpha_in, alpha_out = (one * both if len(one) == 1 else one for one in (alpha_in, alpha_out))
        if len(alpha_in) != len(alpha_out):
            raise CurateError(f"alpha has {len(alpha_in)} concentrations, target_alpha {len(alpha_out)}")
        check_names(manifest, list(self.most or {}), "most")
        limit = caps(manifest, self.frames)
        streams = []
        for place, entry in enumerate(manifest.streams):
            name = entry.name
            concentrations = tuple((one[name], other[name]) for one, other in zip(alpha_in, alpha_out, strict=True))
            if not any(map(any, concentrations)):
                continue
            if not entry.vocabulary:
                raise CurateError(f"{name!r} holds features, not ids", "give it alpha 0; RawView shows it")
            card = manifest.codecs.get(entry.tokenizer)
            special = card.special_tokens if card and entry.modality == "text" else {}
            numbered = sorted((int(m[1]), i) for key, i in special.items() if (m := _SENTINEL.fullmatch(key)))
            is_text = len(numbered) > 1 and _END in special
            most = (self.most or {}).get(name, _NO_LIMIT)
            streams.append(
                MaskedStream(
                    name,
                    place,
                    math.prod(n for n in entry.shape if n is not None),
                    concentrations,
                    most if isinstance(most, tuple) else (most, most),
                    limit[name],
                    np.array([i for _, i in numbered], np.int64) if is_text else None,
                    special[_END] if is_text else None,
                )
            )
        return MaskedBound(
            _range(self.input_tokens, "input_tokens"),
            _range(self.target_tokens, "target_tokens"),
            _shares(self.weights, both),
            tuple(streams),
        )


_NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class MaskedStream:
    """How one stream is masked: as text where `sentinels` and `end` are given, else as a grid of positions.

    Attributes:
        place: in the manifest.
        unit: ids of a step.
        alphas: of input and of target, a pair for each of a mixture.
        most: tokens in the input and in the target.
        cap: steps shown.
        sentinels: int64, ids of [S_0], [S_1], ...
        end: the id at the end of a text.
    """

    name: str
    place: int
    unit: int
    alphas: tuple[tuple[float, float], ...]
    most: tuple[int, int]
    cap: int | None
    sentinels: Ints | None
    end: int | None


@dataclass(frozen=True)
class MaskedBound:
    """`MaskedView` of one build."""

    parallel: ClassVar[bool] = True

    input_range: tuple[int, int]
    target_range: tuple[int, int]
    weights: NDArray[np.float64]
    masked: tuple[MaskedStream, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.masked)

    @cached_property
    def _masking(self) -> Masking:
        from curate.shards.kernels import Masking  # numba, which takes a second to import

        none = np.empty(0, np.int64)
        sentinels = [none if s.sentinels is None else s.sentinels for s in self.masked]
        return Masking(
            units=np.array([s.unit for s in self.masked], np.int64),
            caps=np.array([s.cap or 0 for s in self.masked], np.int64),
            places=np.array([s.place for s in self.masked], np.int64),
            ends=np.array([-1 if s.end is None else s.end for s in self.masked], np.int64),
            sentinels=np.concatenate([none, *sentinels]),
            sentinel_at=np.cumsum([0, *map(len, sentinels)]),
            mixture=np.cumsum(self.weights),
            alphas=np.array([s.alphas for s in self.masked], np.float64).transpose(1, 2, 0).copy(),
            limits=np.array([s.most for s in self.masked], np.int64).T.copy(),
            budgets=np.array([*self.input_range, *self.target_range], np.int64),
        )

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        return first_row(self.batch(rows.part(i, i + 1), draw))

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        from curate.shards.kernels import mask_rows

        ids, first, steps = flat_ids(rows, self.streams)
        inputs, targets = _rooms(len(rows), self.input_range[1], self.target_range[1])
        names = rows.keys["sample_id"]
        mask_rows(ids, first, steps, self._masking, draw.keys(names), inputs, targets)
        return {"sample_id": names, **_named("input", inputs), **_named("target", targets)}


_PARTS = ("ids", "positions", "streams", "mask")


def _named(side: str, arrays: tuple[NDArray[Any], ...]) -> dict[str, NDArray[Any]]:
    return {f"{side}_{part}": array for part, array in zip(_PARTS, arrays, strict=True)}


def _rooms(rows: int, *most: int) -> list[Any]:
    """Ids, positions, streams and mask, `(rows, m)` each, for every m of `most`.

    They share one allocation: the system's allocator gives several large ones back and fetches them again in every
    batch, and a page that is new costs more than what is written there.
    """
    whole = np.empty(13 * rows * sum(most), np.uint8)
    at, sides = 0, []
    for kind in (np.int32, np.int32, np.int32, np.bool_):
        for m in most:
            size = rows * m * np.dtype(kind).itemsize
            sides.append(whole[at : at + size].view(kind).reshape(rows, m))
            at += size
    return [tuple(sides[i :: len(most)]) for i in range(len(most))]


def _mixture(manifest: Manifest, alpha: Alpha | Sequence[Alpha], what: str) -> list[dict[str, float]]:
    every = [alpha] if isinstance(alpha, Mapping | float | int) else list(alpha)
    if not every:
        raise CurateError(f"{what}: a mixture of nothing")
    return [_alphas(manifest, one, what) for one in every]


def _shares(weights: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    given = np.ones(count) if weights is None else np.array(weights, np.float64)
    if len(given) != count or (given < 0).any() or not given.any():
        raise CurateError(f"weights: {count} concentrations need as many weights of 0 or more, not all 0")
    shares: NDArray[np.float64] = given / given.sum()
    return shares


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
