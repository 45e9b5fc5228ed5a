"""Croissant (https://docs.mlcommons.org/croissant, version 1.1): a data set that says in JSON-LD what it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from curate.exports.base import Export, Written
from curate.exports.parquet import Parquet
from curate.exports.records import TIMES
from curate.storage import Store

_ARRAY = {"isArray": "cr:isArray", "arrayShape": "cr:arrayShape", "containedIn": "cr:containedIn"}
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **_ARRAY,
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The context that the specification has every data set state."""


class Croissant(Parquet, Export):
    """What `parquet` writes, and a `croissant.json` beside it: a set of files and a set of records for each split.

    `mlcroissant.Dataset("OUT/croissant.json").records("train")` reads it.
    """

    name: ClassVar[str] = "croissant"

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        super().finish(out, written)
        manifest = self._selection.manifest
        licence = self._card()[0].get("license")
        there = [split for split, shards in written.items() if shards]
        files = [
            {
                "@type": "cr:FileSet",
                "@id": f"{split}-files",
                "name": f"{split}-files",
                "description": f"the shards of {split}",
                "encodingFormat": "application/x-parquet",
                "includes": f"{split}/*.parquet",
            }
            for split in there
        ]
        said = {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.1",
            "name": re.sub(r"[^\w-]+", "-", manifest.name),
            "description": f"Token streams of the build {manifest.name!r} of curate, a record a sample.",
            "version": f"{manifest.version}.0.0",
            **({"license": licence} if licence else {}),
            "distribution": files,
            "recordSet": [self._records(split) for split in there],
        }
        out.write("croissant.json", (json.dumps(said, indent=1) + "\n").encode())

    def _records(self, split: str) -> dict[str, Any]:
        shapes = {stream.name: stream for stream in self._selection.streams}
        fields = []
        for column in self._schema.names:
            field: dict[str, Any] = {
                "@type": "cr:Field",
                "@id": f"{split}/{column}",
                "name": f"{split}/{column}",
                "description": self._said(column) or column,
                "dataType": "sc:Integer" if column in TIMES else "sc:Text",
                "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": column}},
            }
            if column in shapes:
                stream = shapes[column]
                shape = ",".join("-1" if n is None else str(n) for n in (None, *stream.shape[1:]))
                field |= {"dataType": "sc:Integer" if stream.vocabulary else "sc:Float"}
                field |= {"isArray": True, "arrayShape": shape}
            fields.append(field)
        return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}
