"""What the page asks of embeddings: the rows nearest to one of them or to a text, and those in a lasso."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.browse.columns import Columns
from curate.browse.map import Maps
from curate.browse.models import Models
from curate.browse.query import LASSO, NEAR, known
from curate.browse.table import Browsed, check_row
from curate.browse.vectors import Vectors
from curate.schema.errors import CurateError

HELD = 4
"""Answers that are kept, 4 bytes a sample each: the next page of one needs it again."""

TEXT_CHARS = 1000
"""Of a text that samples are compared with, at most."""

_CLIP, _CLIP_FIELD = "clip", "clip_image"


class Embeddings:
    """The embeddings of a build.

    Attributes:
        fields: their names.
        texts: names of those that a text can be compared with: of images, by a model that embeds texts, too.
        maps: of each a projection on a plane.
    """

    def __init__(self, browsed: Browsed, columns: Columns, models: Models) -> None:
        kinds = browsed.tables.types.items()
        self.fields = tuple(
            sorted(n for n, k in kinds if pa.types.is_fixed_size_list(k) and pa.types.is_floating(k.value_type))
        )
        self._clip = next((s for s in browsed.tables.manifest.signals if s["name"] == _CLIP), None)
        self.texts = tuple(name for name in self.fields if name == _CLIP_FIELD and self._clip is not None)
        self.maps = Maps(columns, browsed.numbers, self.vectors)
        self._browsed, self._models = browsed, models
        self._lock, self._comparing = threading.Lock(), threading.Lock()
        self._vectors: dict[str, Vectors] = {}
        self._near: dict[tuple[str, int | str], pa.Table] = {}

    def vectors(self, field: object) -> Vectors:
        """Vectors of a field; made the first time.

        Raises:
            CurateError: the build has no such embedding, or its vectors are gone.
        """
        name = known(field, self.fields, "embedding")
        with self._lock:
            if name not in self._vectors:
                self._vectors[name] = Vectors(self._browsed, name)
            return self._vectors[name]

    def sets(self, asked: Mapping[str, Any]) -> dict[str, pa.Table]:
        """The sets of rows that a question is about, as `query.page` takes them.

        Args:
            asked: `near`: `{field, row}` or `{field, text}`; `lasso`: see `Maps.inside`; both may be missing.

        Raises:
            CurateError: something is not in the vocabulary, or there is no vector to compare with.
        """
        near, lasso = asked.get(NEAR), asked.get(LASSO)
        if not all(one is None or isinstance(one, dict) for one in (near, lasso)):
            raise CurateError(f"{NEAR} and {LASSO} are objects")
        out = {}
        if near is not None:
            out[NEAR] = self._nearest(near)
        if lasso is not None:
            out[LASSO] = pa.table({"n": self.maps.inside(lasso)})
        return out

    def _nearest(self, near: Mapping[str, Any]) -> pa.Table:
        vectors = self.vectors(near.get("field"))
        field, text = str(near["field"]), near.get("text")
        if text is not None and not (isinstance(text, str) and text.strip() and len(text) <= TEXT_CHARS):
            raise CurateError(f"a text to compare with has 1 to {TEXT_CHARS} characters")
        to = check_row(near.get("row")) if text is None else text
        with self._comparing:  # the page asks for rows and counts at once
            found = self._near.pop((field, to), None)
            if found is None:
                vector = vectors.of(to) if isinstance(to, int) else self._text(field, to)
                if vector is None:
                    raise CurateError(f"this sample has no {field}")
                found = pa.table({"n": vectors.rows, "_cosine": vectors.cosines(vector)})
            self._near[field, to] = found  # now the youngest
            while len(self._near) > HELD:
                del self._near[next(iter(self._near))]
            return found

    def _text(self, field: str, text: str) -> Any:
        known(field, self.texts, "embedding of texts")
        assert self._clip is not None
        return self._models.ask("text", self._clip["options"], self._clip["version"], text)
