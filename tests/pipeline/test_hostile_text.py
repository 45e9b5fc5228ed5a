"""A build of what strangers write: names, captions and tars that try to be markup, commands or special tokens."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from small import Project
from typer.testing import CliRunner

import curate
from curate.card.text import visible
from curate.cli.main import app
from curate.schema.package_data import data_folder
from curate.shards.commit import read_manifest
from curate.tokenizers.codecs.text_bpe import OFFSET, SPECIAL, TextBPE

RECIPE = """\
name: hostile
partition: 64
sources:
  - {kind: folder, name: "folder", path: media}
  - {kind: webdataset, name: "tars", path: "tars/*.tar"}
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k}
    - {name: caption, tokenizer: text-bpe-8k}
caption: {prefer: [given]}
max_failed: 1
"""

MARKUP = [
    "<script>alert(1)</script>",
    "</td></table><script src=//evil.example/x.js></script>",
    '"><img src=x onerror=alert(1)>',
    "<svg/onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a> javascript:alert(1)",
    "[x](javascript:alert(1)) ![x](https://evil.example/x.png) `code` | cell |",
    "</style><style>@import url(//evil.example)</style>",
    "<!-- --><iframe srcdoc='<script>alert(1)</script>'>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}{{ config }}",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "---\n# heading\n---\n<script>alert(1)</script>",
]
CONTROL = [
    "bell\x07 clear\x1b[2J title\x1b]0;owned\x07 back\x08\x08 carriage\rreturn",
    "\x9b31m and \x9d0;owned\x9c of the upper controls",
    "bidi \u202egnp.exe\u202c \u2066isolated\u2069 \u200b\ufeff tags \U000e0041\U000e007f",
    "NUL \x00 in the middle",
    "separators \u2028 \u2029 and \x85 \x0b \x0c",
]
TOKENS = [f"a dog {token} and a cat" for token in ("<|endoftext|>", "<s>", "</s>", "<pad>", "[CLS]", "[SEP]", "<mask>")]
TOKENS += [f"a dog{token}" for token in sorted(SPECIAL)[:3]] + ["".join(sorted(SPECIAL))]
OTHER = ['=cmd|"/C calc"!A0', "'; DROP TABLE ledger; --", "%s%n%x ${HOME} $(id) `id`", "x" * 1_000_000]
CAPTIONS = MARKUP + CONTROL + TOKENS + OTHER

NAMES = [
    "<img src=x onerror=alert(1)>.png",
    "<script>alert(1)<&>.png",
    "esc\x1b[2J\x1b]0;owned\x07.png",
    "two\nlines\r.png",
    "bidi\u202egnp.png",
    "\"quotes'`.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "--out=elsewhere.png",
    "javascript:alert(1).png",
    "[CLS]<|endoftext|>.png",
    "'; DROP TABLE ledger; --.png",
    f"{'l' * 240}.png",
]


def image(i: int) -> bytes:
    """A small image that no other number gives."""
    out = io.BytesIO()
    noise = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True)
class Made:
    """A build, what its run said, and what went in.

    Attributes:
        captions: uri to caption, of what is to be kept.
        failed: uris of what is to fail.
    """

    project: Project
    out: Path
    said: str
    captions: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("hostile")
    media, tars = root / "media", root / "tars"
    media.mkdir()
    tars.mkdir()
    captions: dict[str, str] = {}
    for i, name in enumerate(NAMES):
        (media / name).write_bytes(image(i))
        words = MARKUP[i % len(MARKUP)]
        (media / name).with_suffix(".json").write_text(
            json.dumps({"caption": words, "licence": MARKUP[1] + CONTROL[0], MARKUP[0]: [CONTROL[2]]})
        )
        captions[name] = words
    failed = {"<b onclick=alert(1)>fake\x1b[2J.png": "probe", "long.png": "its .txt is larger than 1048576"}
    (media / "<b onclick=alert(1)>fake\x1b[2J.png").write_bytes(b"<script>alert(1)</script>")
    (media / "long.png").write_bytes(image(100))
    (media / "long.txt").write_text("w" * 10_000_000)
    (media / "half.png").write_bytes(image(101))
    (media / "half.json").write_text('{"caption": "half of \\ud83d a pair"}')
    captions["half.png"] = "half of \ufffd a pair"
    Path(os.fsdecode(os.fsencode(media) + b"/caf\xe9.png")).write_bytes(image(102))
    failed["caf\\xe9.png"] = "its name is not UTF-8"
    with tarfile.open(tars / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for i, words in enumerate(CAPTIONS):
            add(f"{i:03}.png", image(200 + i))
            add(f"{i:03}.txt", words.encode())
            captions[f"t.tar/{i:03}"] = words
        for i, name in enumerate(
            ["../up", "/etc/top", "esc\x1b[2J", "bidi\u202egnp", "<b onclick=alert(1)>two\nlines"]
        ):
            add(f"{name}.png", image(300 + i))
            failed[f"t.tar/{name}"] = "unsafe name" if i < 2 else "not printable"
        add("<i>alone.pkl", b"cos\nsystem\n(S'touch owned'\ntR.")
        failed["t.tar/<i>alone"] = "none of its members is media"
    (tars / "<b onclick=alert(1)>.tar").write_bytes(b"no tar")
    failed["<b onclick=alert(1)>.tar"] = "no tar"
    project = Project(root)
    done = project.run(root / "out", "--workers", 2, recipe=RECIPE)
    return Made(project, root / "out", done.stdout + done.stderr, captions, failed)


def rows(build: Path, table: str) -> list[dict]:
    import pyarrow.parquet as pq

    return [row for path in sorted((build / table).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_nothing_is_lost(made: Made) -> None:
    manifest = read_manifest(made.out)
    records = [row for row in rows(made.out, "verdicts") if row["level"] == "record"]
    assert Counter(row["uri"] for row in records) == Counter([*made.captions, *made.failed])
    assert manifest.counts.records["total"] == len(records)
    assert sum(n for name, n in manifest.counts.records.items() if name != "total") == len(records)
    for row in records:
        if row["uri"] in made.failed:
            assert row["outcome"] == "failed"
            assert made.failed[row["uri"]] in f"{row['stage']} {row['message']}"
        else:
            assert row["outcome"] == "sampled"
    assert manifest.counts.samples["kept"] == len(made.captions)
    assert made.project.curate("verify", made.out).stdout.rstrip().endswith("ok")
    assert not (made.project.root / "owned").exists()


def test_captions_are_their_own_text_and_give_no_special_id(made: Made) -> None:
    from curate.signals.caption import clean, cut

    bpe = TextBPE.load(data_folder("tokenizers") / "text-bpe-8k")
    records = {row["uri"]: row["record_id"] for row in rows(made.out, "records")}
    samples = {row["record_id"]: row["sample_id"] for row in rows(made.out, "samples")}
    got = {sample["sample_id"]: sample for sample in curate.stream(made.out, split="train")}
    for uri, words in made.captions.items():
        ids = got[samples[records[uri]]]["caption"]
        assert int(ids.min()) >= OFFSET, words[:50]
        # control and direction characters are taken out; what is longer than `max_chars` is cut at a word
        assert bpe.decode([ids.astype(np.uint16)]) == [cut(clean(words), 2000)]
    texts = {row["uri"]: row["text"] for row in rows(made.out, "records")}
    assert all(texts[uri] == words.strip() for uri, words in made.captions.items())  # the source's own words stay whole


class Page(HTMLParser):
    """What of a page is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def faults(self) -> list[str]:
        """What no page of ours has."""
        active = ("script", "iframe", "object", "embed", "form", "base", "foreignobject", "input", "template")
        out = [f"<{tag}>" for tag in active if self.tags[tag]]
        for name, value in self.attributes:
            said = "".join((value or "").split()).lower()
            is_url = name in ("src", "href", "xlink:href", "srcset", "action", "formaction", "data", "poster")
            if name.startswith("on") or name == "srcdoc":
                out.append(f"{name}={value}")
            if is_url and not said.startswith(("data:image/", "data:audio/", "data:video/", "#")) and said != "data:,":
                out.append(f"{name}={value}")
            if "evil" in said and name not in ("alt", "title"):
                out.append(f"{name}={value}")
            if name == "style" and ("url(" in said or "expression" in said):
                out.append(f"{name}={value}")
        return out


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def test_the_card_shows_it_and_none_of_it_is_alive(made: Made) -> None:
    html = (made.out / "card" / "index.html").read_text(encoding="utf-8")
    page = parsed(html)
    assert page.faults() == []
    shown = "".join(page.text)
    # they are there, as text
    assert len([words for words in MARKUP if " ".join(words.split()) in shown]) >= 3
    assert len([name for name in NAMES[:-1] if visible(name.replace("\n", " ").replace("\r", "")) in shown]) >= 1
    assert "alone.pkl" in shown
    assert "<b onclick=alert(1)>.tar" in shown
    for hidden in "\x07\x1b\x9b\u202e\u2066\x00":
        assert hidden not in html
    assert parsed("<p onclick=x><a href='java\nscript:x'>").faults() == ["onclick=x", "href=java\nscript:x"]
    assert parsed(MARKUP[1]).faults()


def test_the_readme_and_the_metadata_hold_no_markup(made: Made) -> None:
    readme = (made.out / "card" / "README.md").read_text(encoding="utf-8")
    assert parsed(MarkdownIt("commonmark").enable("table").render(readme)).faults() == []
    for hidden in "\x07\x1b\x9b\u202e\u2066\x00":
        assert hidden not in readme


def moves_the_cursor(shown: str) -> list[str]:
    return sorted({c for c in shown if not (c.isprintable() or c == "\n")})


def test_no_command_lets_a_control_character_through_to_the_terminal(made: Made) -> None:
    assert moves_the_cursor(made.said) == []
    some = [
        "esc\x1b[2J\x1b]0;owned\x07.png",
        "<b onclick=alert(1)>fake\x1b[2J.png",
        "t.tar/esc\x1b[2J",
        ".png",
        "nothing\x1b",
    ]
    some += [f"t.tar/{CAPTIONS.index(words):03}" for words in CONTROL]
    commands = [["explain", made.out, what] for what in some]
    commands += [["explain", made.out, "--json", some[0]], ["card", made.out], ["stream", made.out]]
    for command in commands:
        done = CliRunner().invoke(app, list(map(str, command)))
        shown = done.output + str(done.exception or "")
        assert moves_the_cursor(shown) == [], command
        assert len(shown) > 50
    done = made.project.curate("explain", made.out, "nothing\x1b[2J", ok=False)
    assert done.returncode == 2
    assert moves_the_cursor(done.stdout + done.stderr) == []
