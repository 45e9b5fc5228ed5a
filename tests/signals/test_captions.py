"""Captioners that ask an endpoint: what is sent, what becomes of each answer, and of each that is none."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from chat_server import COLOURS, MODEL, REFUSED, ChatServer, running
from pydantic import ValidationError
from signal_media import hand_batch, sine

from curate.media.requests import Audio, DecodeRequest, Frames
from curate.pipeline import models
from curate.pipeline.paths import Paths
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe import Caption, CaptionerUse, Cut
from curate.schema.verdict import Failure
from curate.signals import captions, endpoint
from curate.signals.caption import CaptionSignal
from curate.signals.captions import CaptionerOptions, CaptionerSignal
from curate.signals.kept import DAYS
from curate.signals.presets import CAMERA_MOVES, PRESETS
from curate.signals.prompts import check_template, fields_of, values_of
from curate.signals.refusals import REFUSAL

KEY = "sk-0123456789abcdef-very-secret"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.1)
    with running() as server:
        yield server


def use(server: ChatServer, **more: Any) -> CaptionerUse:
    return CaptionerUse.model_validate({"name": "short", "model": "m", "endpoint": server.url, **more})


def captioner(server: ChatServer, **more: Any) -> CaptionerSignal:
    signal = CaptionerSignal(CaptionerOptions(use=use(server, **more)))
    signal.load()
    return signal


def clip(*colours: str) -> np.ndarray[Any, Any]:
    """A frame of 64 by 48 of each colour."""
    return np.stack([np.full((48, 64, 3), COLOURS[name], np.uint8) for name in colours])


def ask(signal: CaptionerSignal, *clips: Any, text: Any = None, sound: Any = None, **columns: list[Any]) -> list[Any]:
    views: dict[DecodeRequest, list[Any]] = {v: list(clips) for v in signal.needs if isinstance(v, Frames)}
    views |= {v: list(sound) for v in signal.needs if isinstance(v, Audio) and sound is not None}
    count = len(clips) or len(sound or text)
    return signal(hand_batch(["video"] * count, views, text, **columns))


# ---- what is sent


def test_frames_go_in_their_order_and_a_swapped_one_is_another_caption(server: ChatServer) -> None:
    signal = captioner(server, frames=3)
    view = signal.needs[0]
    assert (view.max_frames, view.size, view.crop) == (3, 448, False)
    first, swapped, image, sound = ask(
        signal, clip("red", "green", "blue"), clip("green", "red", "blue"), clip("white"), None
    )
    assert first["short"] == "Frames: red, green, blue."
    assert swapped["short"] == "Frames: green, red, blue."
    assert image["short"] == "Frames: white."
    assert sound == {"short": None, "short_by": None}
    assert len(server.asked) == 3


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_the_same_frames_are_the_same_request_to_the_byte(server: ChatServer, kind: str) -> None:
    signal = captioner(server, format=kind, sampling={"seed": 3, "extra": {"top_p": 0.5}})
    ask(signal, clip("red"))
    ask(captioner(server, format=kind, sampling={"seed": 3, "extra": {"top_p": 0.5}}), clip("red"))
    one, other = server.asked
    assert json.dumps(one.body) == json.dumps(other.body)
    assert one.images == [f"{kind.upper()} 64x48"]
    sampling = {"temperature": 0, "max_tokens": 512, "seed": 3, "top_p": 0.5, "model": "m"}
    assert {key: value for key, value in one.body.items() if key != "messages"} == sampling


def test_where_a_caption_came_from_is_a_column(server: ChatServer) -> None:
    (one,) = ask(captioner(server, sampling={"max_tokens": 99}), clip("red"))
    (other,) = ask(captioner(server, prompt="What?"), clip("red"))
    by, others = json.loads(one["short_by"]), json.loads(other["short_by"])
    assert by["model"] == MODEL, "as the server says it"
    assert by["sampling"] == {"max_tokens": 99, "temperature": 0}
    assert re.fullmatch("[0-9a-f]{16}", by["prompt"])
    assert by["prompt"] != others["prompt"]


def test_a_prompt_has_the_fields_of_its_sample(server: ChatServer) -> None:
    signal = captioner(server, prompt="{{{kind}}} {text} | {conse_tags} | {ocr_text} | {brightness}")
    assert signal.after == ("conse_tags", "ocr_text", "brightness")
    columns = {"conse_tags": [["cup", "table"], None], "ocr_text": ["OPEN\nALL DAY", None], "brightness": [7.25, None]}
    ask(signal, clip("red"), clip("blue"), text=["A {text}\n <b>", None], **columns)
    assert [a.prompt for a in sorted(server.asked, key=lambda a: a.frames)] == [
        "{video}  |  |  | ",
        "{video} A {text} <b> | cup, table | OPEN ALL DAY | 7.25",
    ]


def test_audio_goes_along_where_it_is_asked_for(server: ChatServer) -> None:
    signal = captioner(server, audio=True, frames=2)
    tone = sine(440, 0.5, 1.5)
    both, silent, heard = ask(signal, clip("red", "blue"), clip("green"), None, sound=[tone, None, tone])
    assert both["short"] == "Frames: red, blue. 1.5 s of sound."
    assert silent["short"] == "Frames: green."
    assert heard["short"] == "Frames: none. 1.5 s of sound."
    assert {a.sound for a in server.asked} == {(1.5, int(np.abs(tone).max())), None}


def test_samples_with_text_may_be_left_out(server: ChatServer) -> None:
    given, empty = ask(captioner(server, unless_given=True), clip("red"), clip("blue"), text=["A wall.", "  "])
    assert given["short"] is None
    assert empty["short"] == "Frames: blue."
    assert len(server.asked) == 1


# ---- structured answers


def test_properties_are_typed_fields_with_their_ranges(server: ChatServer) -> None:
    properties = {
        "zebra": {"type": "string", "description": "What is seen."},
        "light": {"enum": ["day", "night"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 10},
        "share": {"type": "number", "minimum": 0.1, "maximum": 1},
        "indoors": {"type": "boolean"},
        "things": {"type": "array", "items": {"type": "string"}},
    }
    signal = captioner(server, schema={"type": "object", "properties": properties}, frames=2)
    fields = {field.name: field for field in signal.gives}
    assert fields["short_people"].type_text() == "0 to 10"
    assert fields["short_share"].range == (0.1, 1)
    assert fields["short_indoors"].range == (0, 1)
    assert fields["short_light"].about == "One of: day, night."
    assert signal.texts == ["short_zebra"]
    (said,) = ask(signal, clip("red", "blue"))
    assert {key: said[f"short_{key}"] for key in properties} == {
        "zebra": "Frames: red, blue.",
        "light": "day",
        "people": 2,
        "share": 0.1,
        "indoors": 1,
        "things": '["Frames: red, blue."]',
    }
    assert list(json.loads(said["short"])) == list(properties), "asked in the order of the recipe, not of the alphabet"
    for name, field in fields.items():
        pa.array([said[name]], field.type)
    # the same after the way to a worker, which sorts the keys of options
    options = json.loads(json.dumps(signal.options.model_dump(mode="json"), sort_keys=True))
    assert list(CaptionerSignal(CaptionerOptions.model_validate(options)).schema["properties"]) == list(properties)  # type: ignore[index]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_asks_for_its_parts(server: ChatServer, name: str) -> None:
    more = {"of": "ocr_text"} if name == "rewrite" else {}
    signal = captioner(server, schema=name, **more)
    frames = [clip("red", "blue")] if signal.needs else []
    (said,) = ask(signal, *frames, text=["Paris"], ocr_text=["A tower."], asr_text=["Paris has a tower."])
    for field in signal.gives:
        pa.array([said[field.name]], field.type)
    assert {f"short_{key}" for key in PRESETS[name].properties} <= set(said)
    assert all(said[f"short_{key}"] not in (None, "") for key in PRESETS[name].properties)
    if name == "hunyuanvideo":
        assert len(CAMERA_MOVES) == 14
        assert said["short_camera_motion"] == "zoom in"
    if name == "rewrite":
        assert "A tower." in server.asked[0].prompt
        assert "Paris" in server.asked[0].prompt


def test_questions_and_answers_of_speech_are_a_list_of_structs(server: ChatServer) -> None:
    signal = captioner(server, schema="howtovqa", calls={"concurrency": 1})
    assert (signal.needs, signal.after, signal.texts) == ((), ("asr_text",), [])
    (pairs,) = [field for field in signal.gives if field.name == "short_pairs"]
    assert pairs.type == pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))
    two = [{"question": "Who  speaks?", "answer": "Jon\nPeirce"}, {"question": "Where?", "answer": "I don't know"}]
    some = [two[0], {"question": " ", "answer": ""}, {"question": "Why?", "answer": ""}]
    server.faults += [f"say {json.dumps({'pairs': pairs})}" for pairs in (two, some, [])]
    said = ask(signal, text=[None] * 4, asr_text=["Hi, I'm Jon Peirce.", "Hm.", "La la la.", None])
    assert len(server.asked) == 3
    assert "Hi, I'm Jon Peirce." in server.asked[0].prompt
    assert [one["short_pairs"] for one in said] == [
        [{"question": "Who speaks?", "answer": "Jon Peirce"}, two[1]],
        [{"question": "Who speaks?", "answer": "Jon Peirce"}, {"question": "Why?", "answer": None}],
        [],
        None,
    ]
    assert said[3]["short_by"] is None
    server.faults += ['say {"pairs": [{"question": "Who?"}]}', 'say {"pairs": "none"}', f"say {REFUSED}"]
    wrong = ask(signal, text=[None] * 3, asr_text=["a", "b", "c"])
    assert [(one.error, one.message.partition(":")[0]) for one in wrong] == [
        ("AnswerError", "its JSON breaks the schema at $.pairs[0]"),
        ("AnswerError", "its JSON breaks the schema at $.pairs"),
        ("Refusal", "it refuses"),
    ]


def test_structs_in_lists_have_the_types_of_properties(server: ChatServer) -> None:
    thing = {
        "name": {"type": "string"},
        "count": {"type": ["integer", "null"]},
        "share": {"type": "number"},
        "whole": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"of": {"enum": ["a", "b"]}}}},
    }
    schema = {
        "type": "object",
        "properties": {"things": {"type": "array", "items": {"type": "object", "properties": thing}}},
    }
    signal = captioner(server, schema=schema)
    field = signal.gives[-1]
    value = {"name": "A cup", "count": None, "share": 1, "whole": True, "tags": ["x"], "parts": [{"of": "b"}]}
    server.faults.append(f"say {json.dumps({'things': [value]})}")
    (said,) = ask(signal, clip("red"))
    assert pa.array([said["short_things"]], field.type).to_pylist() == [
        [value | {"whole": 1, "tags": '["x"]'}],
    ]


@pytest.mark.parametrize(
    ("said", "message"),
    [('{"n": 4000000000, "x": 1}', "more than 32 bits"), ('{"n": 1, "x": 1e999}', "a number that is too large")],
)
def test_a_number_that_no_field_holds_is_the_failure_of_its_sample(server: ChatServer, said: str, message: str) -> None:
    properties = {"n": {"type": "integer"}, "x": {"type": "number"}}
    signal = captioner(server, schema={"type": "object", "properties": properties})
    server.faults.append(f"say {said}")
    (bad,) = ask(signal, clip("red"))
    assert bad.error == "AnswerError"
    assert message in bad.message


def test_there_is_nothing_to_rewrite_where_text_or_caption_is_missing(server: ChatServer) -> None:
    signal = captioner(server, schema="rewrite", of="long")
    assert signal.needs == ()
    some = ask(signal, text=["Paris", None, "Paris"], long=["A tower.", "A tower.", None])
    assert [one["short_caption"] for one in some] == ["Frames: none.", None, None]


def test_an_empty_part_is_null_and_all_empty_is_no_answer(server: ChatServer) -> None:
    signal = captioner(server, schema="lengths", calls={"concurrency": 1})
    server.faults += [
        'say {"short": "", "medium": "A cup.", "long": " "}',
        'say {"short": "", "medium": "", "long": ""}',
    ]
    some, none = ask(signal, clip("red"), clip("red"))
    assert (some["short_short"], some["short_medium"], some["short_long"]) == (None, "A cup.", None)
    assert (none.error, none.message) == ("AnswerError", "it answers nothing")


# ---- what is no caption

TEXT: list[tuple[str, str, str]] = [
    ("400", "EndpointError", "status 400: not with Bearer ..."),
    ("html", "EndpointError", "a page of HTML"),
    ("nothing", "EndpointError", "answers nothing"),
    ("flood", "EndpointError", "more than 4 MiB"),
    ("no choices", "EndpointError", "no chat completion"),
    ("drop", "EndpointError", "the connection was lost"),
    ("never", "EndpointError", "no answer within 1 s"),
    ("drip", "EndpointError", "no answer within 1 s"),
    ("503", "EndpointError", "status 503"),
    ("say ", "AnswerError", "it answers nothing"),
    ("say  \n", "AnswerError", "it answers nothing"),
    ("say <html><body>A cup</body>", "AnswerError", "a page of markup"),
    ("say " + "word " * 2000, "AnswerError", "9999 characters, more than max_chars, 4000"),
    ("length", "AnswerError", "cut off at 512 tokens"),
    (f"say {REFUSED}", "Refusal", "it refuses: I'm sorry"),
    ("refusal field", "Refusal", "I will not."),
    ("filter", "Refusal", "content_filter"),
]
JSON = [
    ("say A cup.", "AnswerError", "no JSON: A cup."),
    ('say {"short": "A cup.", "medium"', "AnswerError", "no JSON"),
    ('say {"short": NaN, "medium": "b", "long": "c"}', "AnswerError", "no JSON"),
    ('say ["A cup."]', "AnswerError", "breaks the schema at $: "),
    ('say {"short": "A cup."}', "AnswerError", "breaks the schema at $: 'medium' is a required property"),
    ('say {"short": 1, "medium": "b", "long": "c"}', "AnswerError", "breaks the schema at $.short"),
    (f'say {{"short": "{REFUSED}", "medium": "b", "long": "c"}}', "Refusal", "it refuses"),
    (f"say {REFUSED}", "Refusal", "it refuses"),
    ("say <!DOCTYPE html>", "AnswerError", "a page of markup"),
]


@pytest.mark.parametrize(
    ("fault", "error", "message", "schema"),
    [(*case, None) for case in TEXT] + [(*case, "lengths") for case in JSON],
    ids=[case[0][:24].strip() for case in (*TEXT, *JSON)],
)
def test_what_is_no_caption_is_the_failure_of_its_sample(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, fault: str, error: str, message: str, schema: str | None
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    calls = {
        "concurrency": 1,
        "attempts": 1,
        "timeout": 1 if fault in ("never", "drip") else 30,
        "api_key_env": "MY_KEY",
    }
    signal = captioner(server, calls=calls, schema=schema)
    server.faults += ["ok", fault, "ok"]
    before, bad, after = ask(signal, clip("red"), clip("green"), clip("blue"))
    assert isinstance(bad, Failure)
    assert (bad.stage, bad.error) == ("annotate:short", error)
    assert message in bad.message
    assert KEY not in bad.message
    assert "127.0.0.1" not in bad.message
    text = "short" if schema is None else "short_short"
    assert (before[text], after[text]) == ("Frames: red.", "Frames: blue.")


def test_no_server_at_all_is_a_failure_too(server: ChatServer) -> None:
    signal = captioner(server, endpoint="http://127.0.0.1:9/v1", calls={"attempts": 2})
    (bad,) = ask(signal, clip("red"))
    assert (bad.error, bad.message, bad.attempt) == ("EndpointError", "its server cannot be connected to", 2)


@pytest.mark.parametrize(
    "text",
    [REFUSED, "I’m sorry, I can’t", "I cannot describe", "As an AI, I", "Sorry, no.", "I am unable to", "I won't"],
)
def test_refusals(text: str) -> None:
    assert REFUSAL.match(text)


@pytest.mark.parametrize(
    "text", ["I can see a cup", "A sorry sight", "An AI robot", "Cannot be undone", "I in the sky"]
)
def test_captions_that_are_no_refusals(text: str) -> None:
    assert not REFUSAL.match(text)


# ---- calls


def test_what_passes_is_tried_again_with_waits_that_double(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint.random, "uniform", lambda low, high: high)
    waits, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (waits.append(seconds), sleep(seconds)))
    server.retry_after = 0
    server.faults += ["500", "drop", "html"]
    (said,) = ask(captioner(server), clip("red"))
    assert said["short"] == "Frames: red."
    assert [wait for wait in waits if wait] == [0.1, 0.2, 0.4]
    assert len(server.asked) == 4


def test_retry_after_is_waited_for(server: ChatServer) -> None:
    server.faults += ["429"]
    (said,) = ask(captioner(server), clip("red"))
    assert said["short"] == "Frames: red."
    assert server.asked[1].at - server.asked[0].at >= 1


def test_a_failure_says_how_often_it_was_tried(server: ChatServer) -> None:
    server.always, server.retry_after = "503", 0
    (bad,) = ask(captioner(server, calls={"attempts": 3}), clip("red"))
    assert (bad.message, bad.attempt, len(server.asked)) == ("status 503", 3, 3)


def test_what_lasts_is_asked_once(server: ChatServer) -> None:
    server.always = "400"
    ask(captioner(server), clip("red"))
    server.always = f"say {REFUSED}"
    ask(captioner(server), clip("red"))
    assert len(server.asked) == 2


def test_as_many_requests_at_once_as_the_recipe_says(server: ChatServer) -> None:
    server.seconds = 0.2
    said = ask(captioner(server, calls={"concurrency": 3}), *[clip("red"), clip("blue")] * 6)
    assert [one["short"] for one in said] == ["Frames: red.", "Frames: blue."] * 6
    assert server.most_at_once == 3


def test_requests_per_minute_are_spread(server: ChatServer) -> None:
    begun = time.monotonic()
    ask(captioner(server, calls={"requests_per_minute": 600}), *[clip("red")] * 6)
    assert max(asked.at for asked in server.asked) - begun >= 0.5


def test_a_batch_ends_before_the_worker_is_taken_for_dead(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert captions.BATCH_SECONDS + 10 < models.BATCH_SECONDS
    assert captions.SAMPLE_SECONDS < models.SAMPLE_SECONDS
    monkeypatch.setattr(captions, "BATCH_SECONDS", 0.5)
    monkeypatch.setattr(captions, "SAMPLE_SECONDS", 0.1)
    server.always = "never"
    begun = time.monotonic()
    found = ask(captioner(server, calls={"concurrency": 1}), *[clip("red")] * 3)
    assert time.monotonic() - begun < 20
    assert {one.error for one in found} == {"EndpointError"}


def test_a_rate_that_no_batch_can_wait_for_stops_the_run(server: ChatServer) -> None:
    with pytest.raises(CurateError, match="would wait") as error:
        ask(captioner(server, calls={"requests_per_minute": 0.1}), clip("red"), clip("red"))
    assert "requests_per_minute" in error.value.hint


@pytest.mark.parametrize("budget", [{"max_requests": 2}, {"max_tokens": 15}], ids=str)
def test_a_budget_that_is_spent_stops_the_run(server: ChatServer, budget: dict[str, int]) -> None:
    signal = captioner(server, calls={"concurrency": 1, **budget})
    with pytest.raises(CurateError, match=f"budget of this run is spent .{next(iter(budget))}: ") as error:
        ask(signal, *[clip("red")] * 4)
    assert len(server.asked) == 2
    assert "what was committed is kept" in error.value.hint


def test_a_server_that_does_not_count_is_taken_to_have_used_what_it_may(server: ChatServer) -> None:
    server.tokens = None
    signal = captioner(server, calls={"concurrency": 1, "max_tokens": 150}, sampling={"max_tokens": 100})
    with pytest.raises(CurateError, match="max_tokens: 150"):
        ask(signal, *[clip("red")] * 4)
    assert len(server.asked) == 2


# ---- the key


def test_the_key_is_sent_and_found_nowhere_else(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    signal = captioner(server, calls={"api_key_env": "MY_KEY"})
    ask(signal, clip("red"))
    ask(captioner(server), clip("red"))
    assert [asked.key for asked in server.asked] == [f"Bearer {KEY}", None]
    assert KEY not in signal.options.model_dump_json() + json.dumps(signal.made_by()) + signal.version()
    server.always = "401"
    with pytest.raises(CurateError, match="refuses the key of MY_KEY") as error:
        ask(signal, clip("red"))
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "says"), [("404", "no model m"), ("quota", "no quota left"), ("401", "asks for a key")]
)
def test_what_no_sample_would_get_past_stops_the_run(server: ChatServer, fault: str, says: str) -> None:
    server.always = fault
    with pytest.raises(CurateError, match=says):
        ask(captioner(server), clip("red"))


@pytest.mark.parametrize(
    ("key", "says"), [(None, "has no MY_KEY"), (" ", "has no MY_KEY"), (f"{KEY}\n{KEY}", "no header")]
)
def test_a_key_that_cannot_be_sent(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str | None, says: str
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if key is not None:
        monkeypatch.setitem(os.environ, "MY_KEY", key)
    with pytest.raises(CurateError, match=says) as error:
        captioner(server, calls={"api_key_env": "MY_KEY"})
    assert KEY not in str(error.value)


# ---- what is asked again, and what is not


def test_an_answer_is_kept_for_its_build_until_a_week_is_over(server: ChatServer, tmp_path: Path) -> None:
    def signal(build: str, **more: Any) -> CaptionerSignal:
        found = CaptionerSignal(CaptionerOptions(use=use(server, calls={"concurrency": 1}, **more), build=build))
        found.load()
        return found

    server.faults += ["ok", f"say {REFUSED}"]
    first, refused = ask(signal("here"), clip("red"), clip("blue"))
    again, mended = ask(signal("here"), clip("red"), clip("blue"))
    assert isinstance(refused, Failure)
    assert first == again
    assert mended["short"] == "Frames: blue.", "only what was a caption is kept"
    assert len(server.asked) == 3
    ask(signal("there"), clip("red"))
    ask(signal("here", sampling={"seed": 1}), clip("red"))
    assert len(server.asked) == 5
    (today,) = (tmp_path / "cache/answers").iterdir()
    today.rename(today.with_name("2020-01-01"))
    ask(signal("here"), clip("red"))
    assert len(server.asked) == 6, f"swept after {DAYS} days"


def test_how_and_where_it_is_called_asks_nothing_again(server: ChatServer) -> None:
    def name(**more: Any) -> str:
        signals = [CaptionerSignal(CaptionerOptions(use=use(server, **more)))]
        return Paths.of({"web": None}, Cut(), signals).signals("p", "web", "short")

    usual = name()
    assert name(calls={"concurrency": 99, "max_requests": 5}, endpoint="http://other:1/v1") == usual
    others = [
        {"model": "n"},
        {"prompt": "What?"},
        {"frames": 2},
        {"size": 64},
        {"format": "png"},
        {"sampling": {"seed": 1}},
        {"schema": "lengths"},
        {"schema": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}},
        {"schema": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}},
    ]
    assert len({usual, *(name(**other) for other in others)}) == 1 + len(others)


# ---- templates, and the caption of a sample


def test_templates() -> None:
    fields = {
        "ocr_text": SignalField("ocr_text", pa.string()),
        "tags": SignalField("tags", pa.list_(pa.string())),
        "clip_image": SignalField("clip_image", pa.list_(pa.float32(), 4)),
    }
    assert fields_of("{a} {{b}} {c} {a}") == ["a", "c"]
    assert values_of("{a}{b}", {"a": "x\x00\ny " * 2000, "b": 0.5})["b"] == "0.5"
    assert len(values_of("{a}", {"a": "xy " * 2000})["a"]) <= 2000
    check_template("{text} {kind} {ocr_text} {tags}", fields)
    for template, says in {
        "{ocr_txt}": "which no earlier signal gives; did you mean `ocr_text`",
        "{clip_image}": "vector of 4 and no words",
        "{ocr_text": "no template",
        "{text.__class__}": "no name of a field",
        "{text!r}": "no name of a field",
        "{text:>9}": "no name of a field",
        "{}": "no name of a field",
    }.items():
        with pytest.raises(CurateError, match=says):
            check_template(template, fields)


def test_prefer_names_the_caption_of_a_sample() -> None:
    uses = [{"name": n, "model": "m", "endpoint": "http://h/v1"} for n in ("short", "long")]
    batch = hand_batch(["image"] * 3, {}, ["Given", None, None], short=["S", "S", None], long=["L", "L", None])

    def said(**more: Any) -> list[tuple[Any, Any]]:
        signal = CaptionSignal.of(Caption.model_validate({"captioners": uses, **more}), (), ["short", "long"])
        return [(one["caption"], one["caption_source"]) for one in signal(batch)]  # type: ignore[index]

    assert said() == [("Given", "given"), ("S", "short"), (None, "none")]
    assert said(prefer=["long", "given"]) == [("L", "long"), ("L", "long"), (None, "none")]
    with pytest.raises(CurateError, match="prefer names `shrt`, which gives no text; did you mean `short`"):
        said(prefer=["shrt"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"endpoint": f"https://me:{KEY}@host/v1"}, "without user, password"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, "without user, password"),
        ({"endpoint": "host:8000/v1"}, "base url"),
        ({"endpoint": "http://host:99999999/v1"}, "base url"),
        ({"calls": {"api_key_env": KEY}}, "never the key itself"),
        ({"sampling": {"extra": {"messages": []}}}, "extra cannot set messages"),
        ({"endpoint": None, "schema": "lengths"}, "schema is for an endpoint"),
        ({"endpoint": None, "frames": 3}, "frames is for an endpoint"),
        ({"endpoint": None, "sampling": {"temperature": 1}}, "all of sampling but max_tokens is for an endpoint"),
        ({"name": "Caption Short"}, "should match pattern"),
    ],
)
def test_an_entry_that_cannot_be_meant(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        CaptionerUse.model_validate({"name": "short", "model": "m", "endpoint": "http://h/v1", **wrong})
    (only,) = error.value.errors()
    assert says in only["msg"]
    assert KEY not in only["msg"]
    assert not isinstance(only["input"], str) or KEY not in only["input"], (
        "the recipe's error shows a value that is wrong"
    )
