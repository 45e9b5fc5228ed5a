"""Decisions of a run: verdicts on all partitions, and the second look at what they keep, until nothing new is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from curate.decide.causes import causes_of
from curate.decide.decide import decide
from curate.decide.ledger import RECORD, Fragment, checked_counts
from curate.decide.partitions import PartitionFiles
from curate.pipeline.annotate import Context
from curate.pipeline.board import Tally
from curate.pipeline.decodes import decodes_of
from curate.pipeline.failed_sources import ALL, failed_whole
from curate.pipeline.listing import Listing
from curate.pipeline.look import RESTS, kept_as_rest, look
from curate.pipeline.nothing_kept import nothing_kept
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Group
from curate.pipeline.progress import Stage
from curate.pipeline.run_context import RunContext
from curate.pipeline.spent import add_spent
from curate.schema.manifest import Counts, File, SecondLook
from curate.schema.verdict import Outcome
from curate.storage import Store
from curate.storage.bucket import endpoint_env


class Decisions:
    """What a run decided.

    Args:
        partitions: all of the build, by name, in order.
        groups: of signals, as workers get them.
        fewest: records of a source that tell of it, where all have failed.

    Attributes:
        fragments: verdicts of the partitions, in their order.
        counts: their sums.
        pairs: files of links between near duplicates.
        looked: by partition and group of the second look, its fragment.
        files: those of `looked` whose digests are known.
        rests: files of what was looked at for other recipes and may be wanted again.
        seconds: that deciding took, without the second look.
    """

    def __init__(
        self, run: RunContext, partitions: Mapping[str, Partition], groups: Sequence[Group], fewest: int = 1
    ) -> None:
        self._run, self._partitions, self._groups, self._fewest = run, partitions, groups, fewest
        self._second = [group for group in groups if group.is_second]
        self._chosen: dict[str, list[str]] = {}  # by partition, files that name what was chosen to be looked at
        self.fragments: Sequence[Fragment] = ()
        self.counts = Counts(records={}, samples={})
        self.pairs: Sequence[str] = ()
        self.looked: dict[str, Mapping[str, str]] = {}
        self.files: list[File] = []
        self.seconds = 0.0
        self._rests: dict[str, list[str]] = {}

    def settle(self, failed: Mapping[str, Sequence[str]], with_look: bool = True) -> None:
        """Decide; look at what is kept and was not looked at, and decide again, until all that is kept was.

        What the second look drops, or fails at, may leave a duplicate that is now kept and is looked at next, with as
        many of its group as have fallen: so rounds grow with the logarithm of the largest group. What is looked at
        follows from the recipe and the input, not from earlier runs.

        Args:
            failed: by partition, fragments of tokens that hold failures.
            with_look: False to decide once, before any second look.

        Raises:
            CurateError: nothing is kept.
        """
        while True:
            self._decide(failed)
            if not self._second or not with_look:
                return
            new: set[str] = set()
            for name, fragment in zip(self._partitions, self.fragments, strict=True):
                paths = [path for path in (fragment.path if fragment.unseen else None, fragment.ahead) if path]
                if paths:
                    self._chosen.setdefault(name, []).extend(paths)
                    new.add(name)
            if not new:
                self._keep_others()
                return
            self._look(sorted(new))

    @property
    def rests(self) -> list[str]:
        return [path for paths in self._rests.values() for path in paths]

    @property
    def second_look(self) -> SecondLook | None:
        """What the second look was; None where the recipe asks for none."""
        if not self._second:
            return None
        models = [s.name for g in self._second for s in g.signals if s.cost.model]
        return SecondLook(
            signals=[s.name for g in self._second for s in g.signals],
            models=models,
            samples=sum(fragment.evaluated for fragment in self.fragments),
        )

    def _decide(self, failed: Mapping[str, Sequence[str]]) -> None:
        plan, recipe, paths = self._run.plan, self._run.plan.file.recipe, self._run.paths
        with Stage(self._run.console, "decide", 0, "samples", course=self._run.course) as stage:
            decided = decide(
                self._run.build,
                [self._files_of(partition) for partition in self._partitions.values()],
                recipe.decide.model_copy(update={"rules": recipe.sample_rules}),
                plan.fields,
                {f.name: g.name for g in self._groups for s in g.signals for f in s.gives},
                {s.name: g.name for g in self._groups for s in g.signals},
                recipe.seed,
                self._run.cluster.engine(),
                failed,
                second=paths.second,
            )
            records = sum(partition.rows for partition in self._partitions.values())
            counts = Counts(**checked_counts((f.counts for f in decided.fragments), records))
            stage.expect(counts.samples["total"])
            stage.count(**{outcome: n for outcome, n in counts.samples.items() if outcome != "total"})
        self.seconds += stage.seconds
        self.fragments, self.counts, self.pairs = decided.fragments, counts, decided.pairs
        self._check_sources()
        if not counts.samples[Outcome.KEPT]:
            raise nothing_kept(plan.file, self._run.build, counts, [f.path for f in self.fragments])

    def _check_sources(self) -> None:
        """Raises CurateError where every record of a source has failed, of `fewest` or more."""
        if self._run.plan.file.recipe.max_failed == 1:
            return
        records, failed, paths = Counter[str](), Counter[str](), dict[str, list[str]]()
        for partition, fragment in zip(self._partitions.values(), self.fragments, strict=True):
            of = fragment.counts[RECORD]
            records[partition.source] += sum(of.values())
            failed[partition.source] += of[Outcome.FAILED]
            paths.setdefault(partition.source, []).append(fragment.path)
        for source, count in records.items():
            if failed[source] == count >= self._fewest:
                cause = causes_of(self._run.build, paths[source])[0]
                raise failed_whole(source, count, ALL, cause, "`--retry-failed` tries them again")

    def _files_of(self, partition: Partition) -> PartitionFiles:
        name, source, paths = partition.name, partition.source, self._run.paths
        signals = {g.name: paths.signals(name, source, g.name) for g in self._groups if not g.is_second}
        looked = self.looked.get(name, {})
        return PartitionFiles(name, paths.records(name, source), paths.samples(name, source), {**signals, **looked})

    def _look(self, names: Sequence[str]) -> None:
        """Look at what is kept of some partitions."""
        self._run.preflight.signals(s.name for group in self._second for s in group.signals)
        folders = [f"{root}/{group.name}" for group in self._second for root in ("signals", RESTS)]
        there = [stat.path for folder in folders for stat in self._run.build.files(folder)]
        board, told = self._run.cluster.board(), Tally()
        board.add("look", queued=len(names))
        context = Context(self._run.build, self._run.paths, Listing(there), board, endpoint_env())
        work = {name: (self._partitions[name], self._chosen[name]) for name in names}
        with Stage(self._run.console, "look", 0, "looks", course=self._run.course) as stage:
            with board.shown({"look": stage}):
                for row in look(context, work, self._second, self._run.cluster, self._run.plan.computes):
                    self.looked[row["partition"]] = dict(row["fragments"])
                    self._rests[row["partition"]] = row["rests"]
                    self.files += [File(**file) for file in row["files"]]
                    self._run.decodes.add(decodes_of(row["decodes"]))
                    told.add(row["look"])
            told.end(stage)
        add_spent(self._run.spent, board)

    def _keep_others(self) -> None:
        """Keep what was looked at in partitions of which this run keeps nothing: a threshold may come back."""
        named: list[str] = []
        items: list[tuple[Store, str, Mapping[str, str]]] = []
        for group in self._second:
            digests = {s.name: self._run.paths.signals_as[s.name] for s in group.signals}
            for folder in (f"signals/{group.name}", f"{RESTS}/{group.name}"):
                for stat in self._run.build.files(folder):
                    name = PurePosixPath(stat.path).name.rpartition("-")[0]
                    if name not in self.looked and name in self._partitions:
                        named.append(name)
                        items.append((self._run.build, stat.path, digests))
        for name, kept in zip(named, self._run.cluster.engine().map(kept_as_rest, items), strict=True):
            if kept is not None:
                self._rests.setdefault(name, []).append(kept)
