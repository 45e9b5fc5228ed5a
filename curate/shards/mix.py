"""The way to mix builds for a trainer: `curate.mix`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from curate.schema.errors import CurateError
from curate.shards.dealing import OnError, Tail
from curate.shards.epoch import Shuffle
from curate.shards.kinds import maker
from curate.shards.mixture import Mixture
from curate.shards.parts import BuildPart, Part
from curate.shards.schedule import FINEST
from curate.shards.selected import Selected
from curate.shards.views import RawView, View
from curate.storage import Store

Of = Part | Store | Path | str
"""What a part is made of: a build, or what `join` makes."""


def mix(
    parts: Mapping[str, Of | tuple[Of, float]] | Sequence[Of | tuple[Of, float]],
    *,
    view: View | None = None,
    split: str = "train",
    temperature: float | None = None,
    caps: int | Mapping[str, int] | None = None,
    on_end: Literal["repeat", "stop"] = "repeat",
    seed: int = 0,
    epoch: int = 0,
    shuffle: Shuffle = True,
    rank: int = 0,
    world: int = 1,
    batch: int | None = None,
    tail: Tail = "uneven",
    where: str | Mapping[str, str] | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
    tensors: bool = False,
) -> Mixture:
    """Stream several builds into a trainer, as one.

        for batch in curate.mix([("build/images", 0.7), ("build/clips", 0.3)], view=MaskedView(128, 128), batch=32):
            batch["source"]  # int64 (32,): 0 for images, 1 for clips

    After any n samples a part has given n times its share, rounded down or up; so a window has its share to within two
    samples. Each part comes in the order in which `curate.stream` gives it for this seed, epoch after epoch of its own:
    no sample twice in one of them, whatever the number of ranks and workers, and wherever they are stopped.
    DataLoaders, `state()` and `resume()` are as of `curate.stream`; `counts()` says what was given of which part.

    The view is shown the streams of all builds; what a build lacks is a missing modality of its samples. Items have one
    key more, `source`: the place of the sample's part, in a batch int64 `(samples,)`.

    Args:
        parts: builds, what `curate.join` makes, or `BuildPart(build, split)`, each with its weight or all without; in a
            mapping, by name.
        view: as of `curate.stream`.
        split: of the parts that are named by a build's place.
        temperature: shares are those of n^(1 / T), n the samples of a part (at most its cap): as large as parts are
            for T = 1, which holds where no weights are given either, and the more even, the larger T is.
        caps: most samples of a part in one of its epochs, of all or by name: each epoch has others, drawn anew.
        on_end: what happens where a part has no more samples. `repeat`: its next epoch begins, and the mixture never
            ends. `stop`: the mixture's epoch ends before the first sample that would come a second time.
        where: only samples of which this is true, as of `curate.stream`: of all builds, or by name of the part. What
            is joined takes it in `curate.join`.
        seed, epoch, shuffle, rank, world, batch, tail, on_error, verify, tensors: as of `curate.stream`; a mixture that
            never ends has no tail. A sample that is left out counts as given.

    Raises:
        CurateError: what `curate.stream` raises; weights for some parts only, or beside a temperature; a part without
            samples; streams of one name that are of two tokenizers.
    """
    named = _named(parts, split, verify)
    found = _selected({name: part for name, (part, _) in named.items()}, where)
    if empty := [name for name, part in found.items() if not part.samples]:
        raise CurateError(f"{empty[0]} has no samples to mix")
    sizes = _capped(found, caps)
    weights = _weights({name: weight for name, (_, weight) in named.items()}, sizes, temperature)
    made: Mixture = maker(Mixture, tensors)(
        found,
        weights,
        sizes,
        view=RawView() if view is None else view,
        on_end=on_end,
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
        rank=rank,
        world=world,
        batch=batch,
        tail=tail,
        on_error=on_error,
    )
    return made


def _named(
    parts: Mapping[str, Of | tuple[Of, float]] | Sequence[Of | tuple[Of, float]], split: str, verify: bool
) -> dict[str, tuple[Part, float | None]]:
    """Parts and weights by name."""
    pairs = list(parts.items()) if isinstance(parts, Mapping) else [(None, one) for one in parts]
    out: dict[str, tuple[Part, float | None]] = {}
    for name, one in pairs:
        of, weight = one if isinstance(one, tuple) else (one, None)
        part: Part = BuildPart(of, split, verify=verify) if isinstance(of, Store | Path | str) else of
        if (name or part.name) in out:
            raise CurateError(f"two parts are called {part.name}", "name them: {name: (build, weight), ...}")
        out[name or part.name] = part, weight
    if not out:
        raise CurateError("there is nothing to mix")
    if len(out) > FINEST:
        raise CurateError(f"{len(out)} parts: {FINEST} can be mixed")
    return out


def _selected(parts: Mapping[str, Part], where: str | Mapping[str, str] | None) -> dict[str, Part]:
    """The parts, of some only the samples that fit."""
    each = where if isinstance(where, Mapping) else {} if where is None else dict.fromkeys(parts, where)
    _check_parts(parts, each, "where")
    out = dict(parts)
    for name, condition in each.items():
        part = parts[name]
        if not isinstance(part, BuildPart):
            raise CurateError(f"where: {name} is not one build", "say it where they are joined: curate.join(where=...)")
        out[name] = Selected(part, condition)
    return out


def _check_parts(parts: Mapping[str, Part], named: Mapping[str, object], what: str) -> None:
    if unknown := [name for name in named if name not in parts]:
        raise CurateError(f"{what}: there is no part {unknown[0]!r}", f"there are: {', '.join(parts)}")


def _capped(parts: Mapping[str, Part], caps: int | Mapping[str, int] | None) -> list[int]:
    """Samples of an epoch of each part."""
    each = caps if isinstance(caps, Mapping) else dict.fromkeys(parts, caps) if caps is not None else {}
    _check_parts(parts, each, "caps")
    if low := [cap for cap in each.values() if cap < 1]:
        raise CurateError(f"caps: {low[0]} is below 1")
    return [min(part.samples, each.get(name, part.samples)) for name, part in parts.items()]


def _weights(given: Mapping[str, float | None], sizes: Sequence[int], temperature: float | None) -> list[float]:
    weights = [w for w in given.values() if w is not None]
    if not weights:
        if temperature is not None and not temperature >= 1:
            raise CurateError(
                f"temperature {temperature}: 1 mixes parts as large as they are, a larger one more evenly"
            )
        return [float(size) if temperature in (None, 1) else (size / max(sizes)) ** (1 / temperature) for size in sizes]
    if temperature is not None:
        raise CurateError("shares come from weights or from a temperature, not from both")
    if len(weights) < len(given):
        lacking = next(name for name, weight in given.items() if weight is None)
        raise CurateError(f"{lacking} has no weight, others have", "give all parts one, or none")
    if bad := [w for w in weights if not 0 < w < float("inf")]:
        raise CurateError(f"a weight of {bad[0]}: weights are above 0")
    return [float(w) for w in weights]
