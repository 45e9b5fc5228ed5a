from __future__ import annotations

import itertools
import pickle
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import yaml
from card_build import (
    STREAMS,
    TRAINED,
    Builder,
    Card,
    Item,
    Watched,
    fault,
    image_item,
    items,
    make_card,
    photo,
    tokenizer,
    tone,
    wav,
)

from curate.card.readme import hub_licence, size_category
from curate.card.write import write_card

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' \u202egpj.exe"


class Page(HTMLParser):
    """What the tests ask of a page: tags with attributes, balance, and text by a class or data attribute."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.sums: dict[str, str] = {}
        self._sum: tuple[str, int] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if "data-level" in found:
            self._sum = (str(found["data-level"]), len(self.open))
            self.sums[self._sum[0]] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if self._sum and len(self.open) < self._sum[1]:
            self._sum = None

    def handle_data(self, data: str) -> None:
        if self._sum:
            self.sums[self._sum[0]] += data

    def numbers(self, level: str) -> list[int]:
        """Numbers of an equation: the total, then its parts."""
        left, right = self.sums[level].split("=")
        parts = [re.findall(r"[\d,]+", term)[0] for term in right.split("+")]
        return [int(n.replace(",", "")) for n in [re.findall(r"[\d,]+", left)[0], *parts]]


def attributes(page: Page) -> list[tuple[str, str]]:
    return [(name, value or "") for _, attrs in page.tags for name, value in attrs.items()]


def test_every_total_is_the_sum_of_its_parts(card: Card) -> None:
    page = Page(card.html)
    assert page.open == []
    for level, counts in (("record", card.manifest.counts.records), ("sample", card.manifest.counts.samples)):
        total, *parts = page.numbers(level)
        assert total == sum(parts) == counts["total"]
        assert parts == [n for name, n in counts.items() if name != "total"]
    kept, *splits = page.numbers("split")
    assert kept == sum(splits) == card.manifest.counts.samples["kept"]


def test_causes_add_up_to_their_outcomes(card: Card) -> None:
    for level, counts in (("record", card.manifest.counts.records), ("sample", card.manifest.counts.samples)):
        block = card.html.split(f'data-level="{level}"')[1].split("</table>")[0]
        causes = re.findall(r'data-outcome="(\w+)".*?class="n count">([\d,]+)<', block, re.S)
        for outcome in ("dropped", "duplicate", "failed"):
            assert sum(int(n) for o, n in causes if o == outcome) == counts[outcome]


def test_the_table_by_source_adds_up(card: Card) -> None:
    table = card.html.split('id="sources"')[1].split("</table>")[0]
    body, foot = table.split("<tfoot>")
    rows = [
        [int(n.replace(",", "")) for n in re.findall(r'<td class="n[^"]*">([\d,]+)</td>', r)]
        for r in body.split("<tr>")[3:]
    ]
    total = [int(n.replace(",", "")) for n in re.findall(r'<td class="n[^"]*">([\d,]+)</td>', foot)]
    assert [sum(column) for column in zip(*rows, strict=True)] == total
    assert total[0] == sum(total[1:5])
    assert total[5] == sum(total[6:])


def test_the_page_asks_nothing_of_any_server(card: Card) -> None:
    page = Page(card.html)
    allowed = {"href": ("#", "data:"), "src": ("data:image/jpeg;base64,", "data:audio/wav;base64,")}
    for name, value in attributes(page):
        if name in ("src", "href", "srcset", "poster", "action", "data", "xlink:href"):
            assert value.startswith(allowed[name]), value[:80]
        assert not name.startswith("on")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in card.html.split("</style>")[0]
    assert "@import" not in card.html
    [policy] = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_links_within_the_page_lead_somewhere(card: Card) -> None:
    page = Page(card.html)
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"] for t, a in page.tags if t == "a"} == {f"#{i}" for i in ids}


def test_every_image_has_words_and_headings_do_not_skip(card: Card) -> None:
    page = Page(card.html)
    assert all(a.get("alt") for t, a in page.tags if t == "img")
    assert all(a.get("aria-label") for t, a in page.tags if t in ("audio", "svg"))
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h\d", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_what_happened_is_shown(card: Card) -> None:
    for words in (
        "sharpness &gt;= 20",
        "cut.min_seconds",
        "faults/empty.mp4",
        "the video ends at 2.0 s",
        "cosine 0.973",
        "Kept for its larger pixels: 106,400 against 38,160.",
        "the one that has text was kept",
        "came to -14",
        "8 levels of 256",
        "little-endian mixed radix, red first",
        "PSNR <b>30.50 dB</b>",
        "x86_64, 1 thread",
        card.files[0].digest,
    ):
        assert words in card.html, words
    assert card.html.count("<audio") == 2 * 4  # two clips and two sounds, each original and decoded


def test_the_same_build_gives_the_same_bytes_wherever_it_lies(card: Card, tmp_path: Path) -> None:
    again = make_card(tmp_path / "elsewhere", items())
    assert again.html == card.html
    assert again.readme == card.readme
    assert str(tmp_path) not in again.html


def test_a_task_can_write_the_card_and_opens_each_file_a_fixed_number_of_times(tmp_path: Path) -> None:
    builder = Builder(tmp_path, items())
    watched = Watched(tmp_path)
    task = partial(write_card, watched, builder.manifest(), builder.files, tokenizer)
    assert pickle.loads(pickle.dumps(task)).args[1] == builder.manifest()
    task()
    for path, times in watched.opened.items():
        # a pass for sums, one for keepers of duplicates, one for what is shown; and once for the columns of signals
        assert times <= 3, path


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    evil = [
        image_item(f"{EVIL}.jpg", photo("coffee.png", 64), EVIL, source="folder", licence=EVIL),
        image_item("long.jpg", photo("rocket.jpg", 64), "word" * 2500),
        Item(f"{EVIL}.mp4", b"", None, outcome="failed", of_record=True, why=fault(EVIL, EVIL * 20), source=EVIL),
        image_item(
            "dropped.jpg",
            photo("brick.png", 64),
            EVIL,
            outcome="dropped",
            why={"rule": EVIL, "threshold": 1.0, "field": "sharpness"},
        ),
    ]
    made = make_card(tmp_path, evil, name=f"n{EVIL}")
    page = Page(made.html)
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags
    assert not any(name.startswith("on") for name, _ in attributes(page))
    assert "\u202e" not in made.html
    assert "⟨U+202E⟩" in made.html
    assert "word" * 200 not in made.html
    assert "(10,000 characters)" in made.html
    assert "<script" not in made.readme
    assert "\u202e" not in made.readme
    assert "](" not in made.readme
    body = made.readme.split("---\n", 2)[2]
    assert "<img" not in body
    assert EVIL[:10] not in body


def test_nothing_but_failures(tmp_path: Path) -> None:
    only = [Item("a.mp4", b"", None, outcome="failed", of_record=True, why=fault("ingest", "the file is empty"))]
    made = make_card(tmp_path, only)
    page = Page(made.html)
    assert page.numbers("record") == [1, 0, 0, 0, 1]
    assert page.numbers("sample") == [0, 0, 0, 0, 0]
    for words in (
        "No sample was kept.",
        "No rule dropped anything.",
        "No duplicates were found.",
        "there is nothing to decode",
    ):
        assert words in made.html
    assert yaml.safe_load(made.readme.split("---\n")[1])["license"] == "unknown"


def test_no_records_at_all(tmp_path: Path) -> None:
    made = make_card(tmp_path, [])
    assert Page(made.html).numbers("record") == [0] * 5


def test_images_alone(tmp_path: Path) -> None:
    made = make_card(tmp_path, [image_item("a.jpg", photo("coffee.png", 128), None)])
    assert "<audio" not in made.html
    assert "Nothing failed." in made.html
    assert "No sample has this stream." in made.html


def test_media_that_cannot_be_shown_is_said_to_be_so(tmp_path: Path) -> None:
    broken = Item("broken.wav", b"RIFF, but no sound", "audio", "broken", 2.0, encode=False)
    made = make_card(tmp_path, [broken])
    assert 'class="problem"' in made.html


def test_large_images_are_made_small(tmp_path: Path) -> None:
    images = [image_item(f"{i}.jpg", photo("astronaut.png", 500).rotate(i), f"turned {i}") for i in range(40)]
    made = make_card(tmp_path, [replace(p, encode=False) for p in images])
    assert made.html.count('<figure class="tile">') == 24
    assert len(made.html) < 600_000


def test_images_of_the_trained_tokenizer(tmp_path: Path) -> None:
    streams = STREAMS | {"tok_rgb@256": TRAINED["tok_rgb@256"]}
    cat = image_item("chelsea.png", photo("chelsea.png"), "A ginger cat looks at the camera")
    made = make_card(tmp_path, [cat], streams=streams)
    [psnr] = re.findall(r"decoded, ([\d.-]+) dB", made.html)
    assert float(psnr) > 20
    assert "decode to exactly the caption" in made.html
    assert "levels 8 · 8 · 8 · 5 · 5 · 5" in made.html


def test_audio_of_the_trained_tokenizer(tmp_path: Path) -> None:
    streams = STREAMS | {"tok_audio@16k": TRAINED["tok_audio@16k"]}
    rising = Item("sound.wav", wav(tone(1.5, 300)), "audio", "A rising tone", 1.5)
    made = make_card(tmp_path, [rising], streams=streams)
    assert made.html.count("<audio") == 2
    assert re.search(r"decoded, SI-SDR [\d.-]+ dB", made.html)
    assert "8 levels of 1,024" in made.html


def test_readme_front_matter_parses(card: Card) -> None:
    head = yaml.safe_load(card.readme.split("---\n")[1])
    assert head["license"] == ["cc-by-4.0", "mit"]
    assert head["size_categories"] == ["n<1K"]
    assert head["pretty_name"] == "tiny"
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "tokens/train/*.arrow"}]
    assert {"image", "video", "audio"} <= set(head["tags"])


def test_readme_tables_add_up(card: Card) -> None:
    for level in ("record", "sample"):
        row = re.findall(rf"^\| {level}s \|(.*)\|$", card.readme, re.M)[0]
        total, *parts = (int(n) for n in row.split("|"))
        assert total == sum(parts) == getattr(card.manifest.counts, f"{level}s")["total"]


def test_what_models_ran_on_is_said(card: Card) -> None:
    assert "\n| vector | signal | cuda | bfloat16 | 32 |\n" in card.readme
    table = card.html.split('aria-label="Models"')[1].split("</table>")[0]
    assert [f">{word}<" in table for word in ("vector", "signal", "cuda", "bfloat16", "32")] == [True] * 5


def test_licences_as_a_hub_names_them() -> None:
    assert hub_licence("CC BY 4.0") == "cc-by-4.0"
    assert hub_licence("CC-BY-SA-3.0") == "cc-by-sa-3.0"
    assert hub_licence("see the package") is None
    assert [size_category(n) for n in (0, 999, 1000, 10**9)] == ["n<1K", "n<1K", "1K<n<10K", "n>1B"]


def test_an_interrupted_card_leaves_no_half_of_it(card: Card) -> None:
    assert sorted(p.name for p in (card.build / "card").iterdir()) == ["README.md", "index.html"]
