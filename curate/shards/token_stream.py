"""A build as a stream into a trainer. Its place is a number, so resuming is arithmetic, on other ranks too.

The order of an epoch is a pure function of (seed, epoch) and of position (`Permutation`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from curate.shards.dealing import Dealing, Gathered, Positioned, look_ahead
from curate.shards.draw import Draw
from curate.shards.memory import Ints
from curate.shards.ordered import Ordered
from curate.shards.parts import BuildPart, Rowed
from curate.shards.selected import Selected
from curate.shards.views import RawView, View
from curate.storage import Store


class TokenStream(Positioned):
    """Iterates over one split of a build; see `stream`. One iterator at a time.

    Attributes:
        manifest: of the build.
    """

    noun = "token stream"

    def __init__(
        self,
        build: Store | Path | str,
        split: str = "train",
        view: View | None = None,
        *,
        where: str | None = None,
        verify: bool = False,
        **dealing: Unpack[Dealing],
    ) -> None:
        super().__init__(**dealing)
        whole = BuildPart(build, split, verify=verify)
        self._part: BuildPart | Selected = whole if where is None else Selected(whole, where)
        self.build, self.manifest, self.split = whole.build, whole.manifest, split
        self._view = (RawView() if view is None else view).bind(self.manifest)
        self._samples = self._part.samples
        self._look_ahead = look_ahead(self._part.row_bytes)
        self._opened: Ordered[Rowed] | None = None

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._samples

    def _gather(self, epoch: int, positions: Ints) -> Gathered:
        opened = self._open()
        rows, fits = opened.take(opened.index(epoch, positions), self._on_error == "skip")
        return Gathered(rows, Draw(self._seed, epoch), fits, {})

    @property
    def _length(self) -> int:
        return self._samples

    @property
    def _identity(self) -> dict[str, int]:
        return {"samples": self._samples, "build": int(self._part.digest[:13], 16)}

    def _other(self) -> str:
        return f"the state is of another build, split or selection than {self.build} {self.split}"

    @property
    def damaged(self) -> dict[str, str]:
        return {} if self._opened is None else dict(self._opened.rows.damaged)

    def _open(self) -> Ordered[Rowed]:
        if self._opened is None:
            self._opened = Ordered(self._part, self._part.open(self._view.streams), self._shuffle, self._seed)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # memory maps are opened again where it is unpickled
