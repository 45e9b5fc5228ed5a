"""One flat vocabulary and one sequence a sample, for autoregressive models (VideoPoet, Kondratyuk et al. 2023, arXiv
2312.14125, section 3): offsets a stream, begin and end markers, loss on the outputs only, exact lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import FlatBlock, Manifest
from curate.shards.draw import Draw, FrameCap, caps, check_names
from curate.shards.flat import flat_ids
from curate.shards.memory import Ints
from curate.shards.reader import Reader
from curate.shards.rows import Ragged, Rows
from curate.shards.schema import streams_of
from curate.storage import Store

PAD, BOS, EOS = 0, 1, 2
_FIRST_MARKER = 3


@dataclass(frozen=True)
class FlatVocabulary:
    """Where each stream's ids lie in one vocabulary; a function of the manifest, and of what a view adds behind it.

    0 is padding, 1 and 2 begin and end a sequence, then a begin and an end marker for each stream in manifest order,
    then the blocks of ids in manifest order. An RVQ stream of L levels has L blocks of its vocabulary, level 0 first,
    so that a level's ids are never mistaken for another's; so have the groups of product quantisation. Continuous
    streams have no ids: those that a view shows have their markers and a *slot*, an id that stands for a vector, behind
    all of these. Task tokens are the last.

    Attributes:
        size: of the whole vocabulary.
        begin, end: marker of each stream.
        offset: first id of each stream.
        levels: blocks of each stream.
        vocabulary: ids of one block.
    """

    size: int
    begin: dict[str, int]
    end: dict[str, int]
    offset: dict[str, int]
    levels: dict[str, int]
    vocabulary: dict[str, int]

    @classmethod
    def of(cls, manifest: Manifest, tasks: int = 0, slots: Sequence[str] = ()) -> FlatVocabulary:
        """The vocabulary of a build, with slots of these continuous streams and then as many task tokens behind it."""
        entries = [s for s in manifest.streams if s.vocabulary]
        names = [s.name for s in entries]
        begin = {name: _FIRST_MARKER + 2 * i for i, name in enumerate(names)}
        offset, levels, at = {}, {}, _FIRST_MARKER + 2 * len(names)
        for entry in entries:
            card = manifest.codecs.get(entry.tokenizer)
            levels[entry.name] = card.n_codebooks if card else 1
            offset[entry.name] = at
            at += levels[entry.name] * entry.vocabulary
        vocabulary = {s.name: s.vocabulary for s in entries}
        for name in slots:
            begin[name], offset[name], levels[name], vocabulary[name] = at, at + 2, 1, 1
            at += 3
        end = {name: marker + 1 for name, marker in begin.items()}
        return cls(at + tasks, begin, end, offset, levels, vocabulary)

    def block(self, stream: str) -> FlatBlock:
        """What a manifest says of a stream's place."""
        begin, end, first = self.begin[stream], self.end[stream], self.offset[stream]
        return FlatBlock(begin=begin, end=end, first=first, levels=self.levels[stream])

    def flatten(self, stream: str, ids: Any) -> Ints:
        """A stream's ids, in C order, as ids of the flat vocabulary."""
        flat = np.asarray(ids).reshape(-1).astype(np.int64)
        level = np.arange(len(flat)) % self.levels[stream]
        return flat + level * self.vocabulary[stream] + self.offset[stream]

    def restore(self, stream: str, tokens: Any) -> Ints:
        """The stream's own ids of a run of flat ids between its markers.

        Raises:
            ValueError: a token that is not of this stream, or not of the level that stands at its place.
        """
        tokens = np.asarray(tokens, np.int64)
        level = np.arange(len(tokens)) % self.levels[stream]
        ids: Ints = tokens - level * self.vocabulary[stream] - self.offset[stream]
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary[stream]):
            raise ValueError(f"tokens that are not of stream {stream!r}, or not of its levels in turn")
        return ids


@dataclass(frozen=True)
class Task:
    """What a sequence is to teach: from some streams to others, e.g. `Task(["caption"], ["tok_rgb@256"])`.

    Text to image, text to video, video to audio, image to video, captioning are such pairs; without inputs it is plain
    generation.

    Attributes:
        inputs: streams that are given, in order; those that a sample lacks are left out, but one it must have.
        outputs: streams to be predicted, in order; a sample that lacks one does not fit.
        weight: how often the task is drawn, of those that a sample fits.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    weight: float = 1.0


@dataclass(frozen=True)
class SequenceView:
    """Sequences `<bos> <begin a> a ... <end a> <begin b> b ... <end b> <eos>`; a missing modality leaves no markers.

    A sample is `{"sample_id", "tokens": int64 (n,), "loss": bool (n,)}`: `loss[i]` says that predicting `tokens[i]`
    from what precedes it counts. That holds for ids and end markers of outputs, and for `<eos>` after any output.
    A batch joins sequences without padding: `tokens` and `loss` `(sum of n,)`, `offsets` int64 `(samples + 1,)`.

    With tasks, each sample draws one that it fits, and `<task>` follows `<bos>`; its tokens are the last of the
    vocabulary, `vocabulary.size - len(tasks)` that of the first. A sample that fits none is `<bos> <eos>`.

    A continuous stream, such as features of CLIP, has a slot in the sequence for each of its vectors (VL-GPT, Zhu et
    al. 2023, arXiv 2312.09251), and the vectors come beside: under the stream's name, float16 `(slots, d)`, in the
    order of their slots. The loss of a slot that is to be predicted is the trainer's.

    Attributes:
        order: streams in sequence order; those left out are not shown.
        outputs: streams of `order` that are to be predicted; the last one where None.
        frames: most steps shown of a sample (see `FrameCap`): a window drawn evenly.
        tasks: instead of `order` and `outputs`.
    """

    order: Sequence[str] = ()
    outputs: Sequence[str] | None = None
    frames: FrameCap = None
    tasks: Sequence[Task] = ()

    def bind(self, manifest: Manifest) -> SequenceBound:
        if self.tasks and (self.order or self.outputs is not None):
            raise CurateError("tasks say their own inputs and outputs", "leave order and outputs out")
        tasks = [(tuple(task.inputs), tuple(task.outputs)) for task in self.tasks]
        for i, (inputs, outputs) in enumerate(tasks):
            _check_order(manifest, (*inputs, *outputs), f"tasks[{i}]")
            if not outputs or self.tasks[i].weight <= 0:
                raise CurateError(f"tasks[{i}]: needs an output, and a weight above 0")
        if not tasks:
            order = tuple(self.order)
            _check_order(manifest, order, "order")
            wanted = order[-1:] if self.outputs is None else tuple(self.outputs)
            if lost := [name for name in wanted if name not in order]:
                raise CurateError(f"outputs: {lost[0]!r} is not in order", f"order is: {', '.join(order)}")
            tasks = [(order, wanted)]
        used = {name for task in tasks for names in task for name in names}
        slots = [s.name for s in manifest.streams if not s.vocabulary and s.name in used]
        vocabulary = FlatVocabulary.of(manifest, len(self.tasks), slots)
        weights = tuple(float(task.weight) for task in self.tasks) or (1.0,)
        return SequenceBound(tuple(tasks), weights, bool(self.tasks), vocabulary, caps(manifest, self.frames), manifest)

    def lengths(
        self, build: Store | Path | str, manifest: Manifest, split: str = "train", draw: Draw | None = None
    ) -> Ints:
        """Exact tokens of each sequence of a split, int64 `(rows,)` in stored order, without reading any ids.

        Args:
            draw: what tasks are drawn from, by which lengths differ; seed 0 and epoch 0 where None.
        """
        bound = self.bind(manifest)
        reader = Reader(build, manifest, split, bound.streams)
        index = np.arange(len(reader))
        return bound.plan(reader.steps(index), reader.names(index), draw or Draw(0, 0))[2]


@dataclass(frozen=True)
class SequenceBound:
    """`SequenceView` of one build.

    Attributes:
        tasks: inputs and outputs of each; of a view without tasks, its order and its outputs.
        weights: of each.
        marked: True if a token says which task a sequence is of.
        cap: most steps of each stream.
    """

    parallel: ClassVar[bool] = True

    tasks: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    weights: tuple[float, ...]
    marked: bool
    vocabulary: FlatVocabulary
    cap: dict[str, int | None]
    manifest: Manifest

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Every stream of any task, in the manifest's order."""
        used = {name for task in self.tasks for names in task for name in names}
        return tuple(s.name for s in self.manifest.streams if s.name in used)

    @cached_property
    def slots(self) -> dict[str, int]:
        """The continuous streams, with the length of their vectors."""
        specs = streams_of(self.manifest)
        return {s.name: s.fixed[-1] for s in specs if not s.vocabulary and s.name in self.streams}

    @cached_property
    def _settings(self) -> _Settings:
        place = {name: i for i, name in enumerate(self.streams)}
        orders = [(*inputs, *outputs) if self.marked else inputs for inputs, outputs in self.tasks]
        tasks = np.full((len(orders), max(map(len, orders))), -1, np.int64)
        counted = np.zeros((len(orders), len(place)), np.bool_)
        for m, (order, (_, outputs)) in enumerate(zip(orders, self.tasks, strict=True)):
            tasks[m, : len(order)] = [place[name] for name in order]
            counted[m, [place[name] for name in outputs]] = True
        units = {s.name: s.unit for s in streams_of(self.manifest)}
        units |= {name: units[name] // size for name, size in self.slots.items()}
        words = self.vocabulary
        return _Settings(
            np.array([units[name] for name in self.streams], np.int64),
            np.array([self.cap[name] or 0 for name in self.streams], np.int64),
            tasks,
            np.array([len(inputs) if self.marked else -1 for inputs, _ in self.tasks], np.int64),
            counted,
            np.array(
                [
                    [words.begin[n], words.end[n], words.offset[n], words.levels[n], words.vocabulary[n]]
                    for n in self.streams
                ],
                np.int64,
            ),
            (BOS, EOS, words.size - len(self.tasks) if self.marked else -1),
        )

    def plan(self, steps: Ints, names: NDArray[np.str_], draw: Draw) -> tuple[Ints, NDArray[np.float64], Ints]:
        """Task, window and tokens of each sample, `(n,)` each; see `plan_sequences`.

        Args:
            steps: `(streams, n)`, -1 where a stream is missing.
            names: the samples' ids.
        """
        from curate.shards.kernels import plan_sequences  # numba, which takes a second to import

        s = self._settings
        return plan_sequences(
            steps, s.units, s.caps, s.tasks, s.inputs, np.array(self.weights), int(self.marked), draw.keys(names)
        )

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        batch = self.batch(rows.part(i, i + 1), draw)
        del batch["offsets"]
        return {**batch, "sample_id": batch["sample_id"][0]}

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        from curate.shards.kernels import write_sequences

        places = {name: self._places(rows.streams[name], name) for name in self.slots}
        ids, first, steps = flat_ids(Rows(rows.keys, {**rows.streams, **places}), self.streams)
        task, at, lengths = self.plan(steps, rows.keys["sample_id"], draw)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        tokens, loss = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.bool_)
        s = self._settings
        write_sequences(
            *(ids, first, steps, s.units, s.caps, s.tasks, s.outputs, s.words, s.marks, task, at),
            *(offsets, tokens, loss),
        )
        made = {"sample_id": rows.keys["sample_id"], "tokens": tokens, "loss": loss, "offsets": offsets}
        return made | {name: self._vectors(rows.streams[name], name, steps, task, at) for name in self.slots}

    def _places(self, vectors: Ragged, name: str) -> Ragged:
        """Zeros, one for each vector of a continuous stream."""
        zeros = np.zeros((len(vectors.values), self._settings.units[self.streams.index(name)]), np.uint8)
        return Ragged(zeros, vectors.offsets, vectors.present, vectors.varies)

    def _vectors(
        self, vectors: Ragged, name: str, steps: Ints, task: Ints, at: NDArray[np.float64]
    ) -> NDArray[np.float16]:
        """The vectors of the slots of a stream that sequences show: `(slots, d)`."""
        place = self.streams.index(name)
        in_task = (self._settings.tasks == place).any(axis=1)
        there = np.maximum(steps[place], 0)
        count = np.minimum(there, self._settings.caps[place] or there)
        start = (at * (there - count + 1)).astype(np.int64)  # as `write_sequences`
        shown: NDArray[np.float16] = vectors.cut(start, np.where((task >= 0) & in_task[task], count, 0))
        return shown.reshape(-1, self.slots[name])


class _Settings(NamedTuple):
    """What the compiled loops take of a bound view."""

    units: Ints
    caps: Ints
    tasks: Ints
    inputs: Ints
    outputs: NDArray[np.bool_]
    words: Ints
    marks: tuple[int, int, int]


def _check_order(manifest: Manifest, order: tuple[str, ...], what: str) -> None:
    check_names(manifest, list(order), what)
    if not order or len(set(order)) != len(order):
        raise CurateError(f"{what}: must name at least one stream, each once: {', '.join(order) or 'nothing'}")
