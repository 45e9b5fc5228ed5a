"""The end of a run: sums, causes of failure, and the exit code that tells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from curate.cli.summary import say_summary, summarise
from curate.decide.causes import causes_of
from curate.media.decodes import Decodes
from curate.pipeline.causes import cause_lines
from curate.pipeline.json_console import JsonConsole
from curate.schema.events import Cause, Event, Summary
from curate.schema.manifest import Counts, File, Manifest, Split, StreamEntry
from curate.schema.recipe import Recipe
from curate.schema.tables import LEDGER
from curate.shards.lists import write_lists
from curate.storage import Folder, Store
from curate.storage.tables import write_table

Row = dict[str, Any]


def row(level: str, number: int, outcome: str, **more: Any) -> Row:
    """A ledger row; what a summary does not read is left out."""
    name = f"{level[0]}{number:03d}"
    said = {"level": level, "id": name, "record_id": name, "source": "here", "uri": f"{name}.jpg", "outcome": outcome}
    return dict.fromkeys(LEDGER.names) | said | more


def failed(level: str, number: int, stage: str, error: str, message: str = "it is broken") -> Row:
    return row(level, number, "failed", stage=stage, error=error, message=message, attempt=1)


ROWS = [
    *(row("record", i, "sampled") for i in range(6)),
    row("record", 6, "duplicate"),
    failed("record", 7, "ingest", "FetchError", "status 404"),
    failed("record", 8, "ingest:probe", "MediaError", "r008.jpg is empty (0 bytes)."),
    failed("record", 9, "ingest", "FetchError", "status 503"),
    *(row("sample", i, "kept") for i in range(5)),
    row("sample", 5, "dropped"),
    failed("sample", 6, "annotate:decode", "MediaError"),
    row("sample", 7, "kept"),
]


def make(folder: Path, rows: Sequence[Row]) -> tuple[Store, Manifest]:
    """A build that is nothing but a ledger in two files, and its manifest."""
    build = Folder(folder)
    table = pa.Table.from_pylist(list(rows), schema=LEDGER)
    files = []
    for number, part in enumerate((table.slice(0, 9), table.slice(9))):
        path = f"verdicts/here-{number:016x}-{'0' * 16}.parquet"
        write_table(build, path, part)
        files.append(File(path=path, digest="0" * 64, bytes=1, rows=part.num_rows))
    sums = Counter((r["level"], r["outcome"]) for r in rows)
    counts = {
        # in the order in which a manifest that was read has them
        f"{level}s": {o: sums[level, o] for o in ("dropped", "duplicate", "failed", passed)}
        | {"total": sum(r["level"] == level for r in rows)}
        for level, passed in (("record", "sampled"), ("sample", "kept"))
    }
    manifest = Manifest(
        name="small",
        recipe={"pack": {"splits": {"train": 0.9, "val": 0.1}}},
        seed=0,
        counts=Counts(**counts),
        splits=[
            Split(name="train", samples=4, shards=["tokens/a"], shard_rows=[4]),
            Split(name="val", samples=2, shards=["tokens/b"], shard_rows=[2]),
        ],
        streams=[
            StreamEntry(
                name="caption",
                tokenizer="text",
                modality="text",
                vocabulary=8192,
                dtype="uint16",
                shape=[None],
                ids=12345,
                samples=6,
            ),
            StreamEntry(
                name="emb",
                tokenizer="effnet",
                modality="image",
                vocabulary=0,
                dtype="float16",
                shape=[None, 7, 7, 1280],
                ids=62720,
                samples=6,
            ),
        ],
        signals=[],
        codecs={},
        versions={},
        hardware="x86_64 cpu",
        lists=write_lists(build, files),
    )
    return build, manifest


def said(summary: Summary, as_json: bool = False) -> tuple[str, str]:
    """What stands on stdout and on stderr."""
    out, err = StringIO(), StringIO()
    result = JsonConsole(out, quiet=True) if as_json else Console(file=out, highlight=False, soft_wrap=True)
    say_summary(summary, "build/my own", result, Console(file=err, highlight=False, soft_wrap=True))
    return out.getvalue(), err.getvalue()


def test_the_summary_adds_up_and_names_the_causes(tmp_path: Path) -> None:
    summary = summarise(*make(tmp_path, ROWS), max_failed=0.5, decodes=Decodes())
    out, err = said(summary)
    assert summary.exit_code == 0
    assert err == ""
    *lines, card, stream = out.splitlines()
    assert lines == [
        "records: 10 = 6 sampled + 0 dropped + 1 duplicate + 3 failed",
        "samples: 8 = 6 kept + 1 dropped + 0 duplicate + 1 failed",
        "2 shards; ids: caption 12,345; values: emb 62,720",
        "splits: train 4 (66.7 %, 90 % asked), val 2 (33.3 %, 10 % asked); all samples of a record go to one split",
        "failed, by cause, with an example each:",
        "      2 records  ingest FetchError  r007.jpg: status 404",
        "      1 record   ingest:probe MediaError  r008.jpg is empty (0 bytes).",
        "      1 sample   annotate:decode MediaError  s006.jpg: it is broken",
    ]
    assert card == f"card:   {tmp_path}/card/index.html"
    assert stream.startswith("stream: ")
    assert stream.endswith(" stream 'build/my own' --bench"), "to be copied into a shell"


def test_all_well_says_nothing_of_failures(tmp_path: Path) -> None:
    summary = summarise(*make(tmp_path, [r for r in ROWS if r["outcome"] != "failed"]), max_failed=0, decodes=Decodes())
    out, err = said(summary)
    assert summary.exit_code == 0
    assert "0 failed\n" in out
    assert "cause" not in out
    assert err == ""


@pytest.mark.parametrize(
    ("max_failed", "over"),
    [
        (0.0, ["records", "samples"]),
        (0.124, ["records", "samples"]),
        (0.125, ["records"]),  # 1 of 8 samples is not above an eighth
        (0.299, ["records"]),
        (0.3, []),
        (1.0, []),
    ],
)
def test_a_rate_above_the_recipes_is_an_exit_code_of_its_own(
    tmp_path: Path, max_failed: float, over: list[str]
) -> None:
    summary = summarise(*make(tmp_path, ROWS), max_failed=max_failed, decodes=Decodes())
    assert summary.failure_rate == {"records": 0.3, "samples": 0.125}
    assert summary.over == over
    assert summary.exit_code == (3 if over else 0)
    out, err = said(summary)
    for level, words in (("records", "3 of 10 records failed, 30 %"), ("samples", "1 of 8 samples failed, 12.5 %")):
        assert (words in err) is (level in over)
    # whoever keeps only stderr has the causes too
    assert ("ingest FetchError  r007.jpg: status 404" in err) is bool(over)
    assert ("ingest FetchError  r007.jpg: status 404" in out) is not bool(over)
    assert f"max_failed of the recipe, {100 * max_failed:.3g} %" in err or not over


def test_sources_count_one_by_one(tmp_path: Path) -> None:
    web = [failed("record", 20 + i, "ingest", "FetchError", "refused") for i in range(2)]
    web += [failed("record", 22, "ingest", "OSError"), row("record", 23, "sampled"), row("sample", 23, "kept")]
    rows = [*ROWS, *({**one, "source": "web"} for one in web)]
    (tmp_path / "a").mkdir()
    summary = summarise(*make(tmp_path / "a", rows), max_failed=0.5, decodes=Decodes())
    assert summary.over == [], "6 of 14 records"
    assert [(s.name, s.level, s.failed, s.total) for s in summary.sources_over] == [("web", "records", 3, 4)]
    assert summary.exit_code == 3
    out, err = said(summary)
    assert "failed, by cause" not in out
    assert "curate: 3 of 4 records of source 'web' failed, 75 %: more than max_failed of the recipe, 50 %" in err
    assert "2 records  ingest FetchError  r020.jpg: refused" in err, "its own causes, not those of all"
    assert "the build is whole" in err
    rows = [one | {"source": "web"} for one in rows]
    (tmp_path / "b").mkdir()
    alone = summarise(*make(tmp_path / "b", rows), max_failed=0.4, decodes=Decodes())
    assert alone.over == ["records"]
    assert alone.sources_over == [], "the only source is said once"


def test_programs_get_the_same_as_one_object(tmp_path: Path) -> None:
    summary = summarise(*make(tmp_path, ROWS), max_failed=0.2, decodes=Decodes(files=3, video_s=1.5))
    out, err = said(summary, as_json=True)
    (line,) = out.splitlines()
    assert Event.model_validate_json(line).root == summary
    told = json.loads(line)
    assert told["event"] == "summary"
    assert told["exit_code"] == 3
    assert told["decodes"] == {"files": 3, "images": 0, "video_s": 1.5, "audio_s": 0.0, "again": 0}
    assert told["over"] == ["records"]
    for level in ("records", "samples"):
        total, *parts = told[level].values()
        assert total == sum(parts)
    assert sum(c["count"] for c in told["causes"]) == told["records"]["failed"] + told["samples"]["failed"]
    assert "3 of 10 records failed" in err


def lose_a_record(manifest: Manifest) -> None:
    manifest.counts.records["sampled"] -= 1


def lose_a_failure(manifest: Manifest) -> None:
    manifest.counts.samples["failed"] -= 1
    manifest.counts.samples["kept"] += 1


@pytest.mark.parametrize("lose", [lose_a_record, lose_a_failure])
def test_sums_that_do_not_add_up_are_a_loud_bug(tmp_path: Path, lose: Callable[[Manifest], None]) -> None:
    build, manifest = make(tmp_path, ROWS)
    lose(manifest)
    with pytest.raises(RuntimeError, match="do not add up"):
        summarise(build, manifest, max_failed=1, decodes=Decodes())


_failure = st.tuples(st.sampled_from(["record", "sample"]), st.sampled_from("abc"), st.sampled_from("XYZ"))


@settings(max_examples=25, deadline=None)
@given(st.lists(_failure, max_size=40), st.integers(1, 50), st.randoms())
def test_causes_are_those_of_a_plain_count(failures: list[tuple[str, str, str]], size: int, chance: Any) -> None:
    rows = [failed(level, i, stage, error) for i, (level, stage, error) in enumerate(failures)]
    rows += [row("sample", 100 + i, "kept") for i in range(3)]
    chance.shuffle(rows)
    table = pa.Table.from_pylist(rows, schema=LEDGER)
    with TemporaryDirectory() as folder:
        build = Folder(Path(folder))
        paths = [f"verdicts/{i}.parquet" for i in range(0, len(rows), size)]
        for i, path in enumerate(paths):
            write_table(build, path, table.slice(i * size, size))
        found = causes_of(build, paths)
    assert {(c.level, c.stage, c.error): c.count for c in found} == Counter(failures)
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)
    for cause in found:
        first = failures.index((cause.level, cause.stage, cause.error))
        assert cause.uri == f"{cause.level[0]}{first:03d}.jpg", "the example does not depend on the order of rows"


def test_only_the_top_causes_are_printed_and_the_rest_is_counted() -> None:
    found = [Cause(level="record", stage=f"s{i}", error="E", count=9 - i, uri="u", message="m") for i in range(7)]
    lines = cause_lines(found)
    assert len(lines) == 6
    assert lines[4] == "      5 records  s4 E  u: m"
    assert lines[5] == "      7 of 2 other kinds"
    assert len(cause_lines(found[:5])) == 5


def test_what_strangers_wrote_cannot_steer_the_terminal_nor_flood_it() -> None:
    uri = "http://x/\x1b[2J\u202egpj.\n" + "a" * 5000 + "/end.jpg"
    cause = Cause(level="record", stage="ingest", error="FetchError", count=1, uri=uri, message="[red]no\x07" * 400)
    (line,) = cause_lines([cause])
    assert line.isprintable()
    assert "\\u001b[2J\\u202egpj" in line
    assert "/end.jpg: [red]no" in line, "both ends of a uri tell something, and markup is text"
    assert len(line) < 400


def test_max_failed_is_a_share() -> None:
    least: dict[str, Any] = {
        "name": "r",
        "sources": [{"kind": "folder", "name": "here", "path": "."}],
        "annotate": [{"name": "sharpness"}],
        "tokenize": {"streams": [{"name": "s", "tokenizer": "image-fsq-64k"}]},
    }
    assert Recipe.model_validate(least).max_failed == 0.5
    for wrong in (-0.1, 1.1, 50):
        with pytest.raises(ValidationError, match="max_failed"):
            Recipe.model_validate(least | {"max_failed": wrong})
