"""Captions by one captioner each: an endpoint, a model of transformers, or one of your own."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import field_serializer, field_validator

from curate.media.encode import encode_jpeg, encode_wav
from curate.media.requests import Audio, Frames
from curate.models.passes import Passes
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS, Resources, RunsOn, SignalField
from curate.schema.ids import digest, key_of
from curate.schema.nearest import meant
from curate.schema.recipe import CaptionerUse
from curate.schema.verdict import Failure
from curate.signals import answers, base, prompts
from curate.signals.base import AUDIBLE, VISUAL, Batch, Result, Signal, Text, Unloaded, failure_of
from curate.signals.caption import clean
from curate.signals.captioner import MAX_NEW_TOKENS, PROMPT, Captioner, TransformersCaptioner, captioner_of
from curate.signals.endpoint import Answer, Endpoint, check_endpoint, max_tokens_of
from curate.signals.kept import Kept
from curate.signals.meter import Meter, RemoteMeter
from curate.signals.presets import PRESETS, Preset
from curate.signals.serve import Server, check_command, find_program

QUALITY = 90
"""Of the JPEG that is sent, 1 to 95."""

RATE = 16_000
"""Of the audio that is sent, Hz."""

BATCH_SECONDS, SAMPLE_SECONDS = 100.0, 18.0
"""What a batch may take: the first and, for each of its members, the second. A worker that is silent for longer is
ended (`curate.pipeline.models`)."""

NOTICED_SECONDS = 0.5
"""How long it may take until a server that broke off is known to have ended."""

VERSION = "1"
"""Of our own code: raised when requests change."""


class CaptionerOptions(base.Options):
    """One entry of the recipe's `captioners`, and what a run adds to it.

    Attributes:
        use: the entry.
        meter: where the calls of the run are counted, as `meter.served` gives it; empty: here.
        build: name of the build whose answers are kept on this machine; empty: none are.
    """

    use: CaptionerUse
    meter: str = ""
    build: str = ""

    @field_serializer("use")
    def _as_text(self, use: CaptionerUse) -> str:
        return use.model_dump_json()  # keys of objects are sorted on the way to a worker, and a schema's are in order

    @field_validator("use", mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        return json.loads(given) if isinstance(given, str) else given


class CaptionerSignal(Signal):
    """The caption of one captioner, who gave it, and a field for each property where its answers have a schema.

    A sample without the media that are asked about has null; so has, where the prompt is words alone, one that lacks
    any of them. A model of transformers and one of your own see the middle frame.

    Raises (constructor):
        CurateError: an unknown preset, a schema or a prompt that is none, a model that is not there.
    """

    Options = CaptionerOptions
    options: CaptionerOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        use = self.use = self.options.use
        self.name = use.name
        self.schema, self.template = schema_of(use), template_of(use)
        preset = preset_of(use)
        frames = use.frames if use.frames is not None else preset.frames if preset is not None else 1
        fps = float(max(8, frames)) if frames > 1 else 1.0  # so that a clip of a second has all of them
        self._view = Frames(use.size, fps, frames, crop=False) if frames else None
        self._sound = Audio(RATE) if use.audio else None
        self.needs = tuple(view for view in (self._view, self._sound) if view is not None)
        self.after = tuple(name for name in prompts.fields_of(self.template) if name not in prompts.OF_SAMPLES)
        self.gives = self._fields()
        self._local = None if use.is_asked else _local(use)
        if use.serve is not None:
            check_command(use.serve)
        self.cost = (
            Resources(cpus=1, gpus=1 if use.serve else 0, model=True)
            if self._local is None
            else getattr(self._local, "cost", Captioner.cost)
        )
        self.on = RunsOn(dtype=self.cost.dtypes[0], batch=self.cost.batch)
        self._endpoint: Endpoint | None = None
        self._server: Server | None = None
        self._kept: Kept | None = None

    @property
    def texts(self) -> list[str]:
        """Fields that may be a sample's caption."""
        if self.schema is None:
            return [self.name]
        return [f"{self.name}_{key}" for key, spec in self.schema["properties"].items() if answers.is_caption(spec)]

    def in_run(self, meter: str, build: str) -> CaptionerSignal:
        """The same captioner in a run; see `CaptionerOptions`."""
        told = CaptionerSignal(CaptionerOptions(use=self.use, meter=meter, build=build))
        told.on = self.on
        return told

    def made_by(self) -> Any:
        said = self.use.model_dump(
            mode="json", exclude={"calls", "endpoint", "prompt", "schema_", "of", "for_", "compute"}
        )
        # as text, for the order of a schema's properties is asked for too
        return said | {"prompt": self.template, "schema": json.dumps(self.schema)}

    def check_files(self) -> str | None:
        if self._local is not None:
            look = getattr(self._local, "check_files", None)  # one of your own need not derive from Captioner
            told: str | None = look() if look is not None else None
            return told
        if self.use.serve is not None:
            find_program(self.use)
            return None
        return check_endpoint(self.use)

    def version(self) -> str:
        return VERSION if self._local is None else f"{VERSION}+{self._local.version()}"

    def load(self) -> None:
        use, options = self.use, self.options
        if self._local is not None:
            self._local.on = self.on
            self._local.load()
            return
        if use.serve is not None:
            self._server = Server(use)
            self._server.start()
        meter = RemoteMeter(options.meter) if options.meter else Meter({use.name: use.calls})
        self._endpoint = Endpoint(use, meter, self._server.url if self._server is not None else None)
        if options.build:
            self._kept = Kept()
            self._kept.sweep()

    def __call__(self, batch: Batch) -> list[Result]:
        """Raises CurateError where no sample will get an answer: a budget is spent, a key is refused; Unloaded where
        the server of its model ended."""
        until = time.monotonic() + BATCH_SECONDS + SAMPLE_SECONDS * len(batch)

        def one(i: int) -> Result:
            try:
                asked = self._asked(batch, i)
                return nothing if asked is None else nothing | self._answered(self._body(*asked), until)
            except CurateError:
                raise
            except Exception as exc:  # the failure is recorded, with its class and message
                return failure_of(f"annotate:{self.name}", exc)

        nothing = dict.fromkeys(field.name for field in self.gives)
        if self._endpoint is None:
            return self._by_model(batch, nothing)
        if self._server is not None and self._server.has_ended():
            raise Unloaded("ended the server of its model")
        with ThreadPoolExecutor(self.use.calls.concurrency) as pool:
            results = list(pool.map(one, range(len(batch))))
        lost = any(isinstance(said, Failure) for said in results)
        if self._server is not None and lost and self._server.has_ended(NOTICED_SECONDS):
            # it ended of one of them, and took the others along that it was asked of at the time; answers are kept
            raise Unloaded("ended the server of its model")
        return results

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _by_model(self, batch: Batch, nothing: dict[str, Any]) -> list[Result]:
        """The results by a model that is no endpoint, which is asked of all samples at once."""
        assert self._local is not None
        out: list[Result] = [nothing] * len(batch)
        frames: dict[int, NDArray[Any]] = {}
        words: list[str] = []
        for i in range(len(batch)):
            try:
                asked = self._asked(batch, i)
            except Exception as exc:
                out[i] = failure_of(f"annotate:{self.name}", exc)
                continue
            if asked is not None and asked[1] is not None:
                words.append(asked[0])
                frames[i] = asked[1][len(asked[1]) // 2]
        for i, said in zip(frames, self._captions(list(frames.values()), words), strict=True):
            if isinstance(said, Exception):
                out[i] = failure_of(f"annotate:{self.name}", said)
            elif text := clean(said):
                out[i] = nothing | {self.name: text, f"{self.name}_by": self._by(self.use.model)}
        return out

    def _captions(self, frames: Sequence[NDArray[Any]], asked: Sequence[str]) -> Sequence[str | Exception]:
        """What the model says of each image, or why it says nothing."""
        local = self._local
        assert local is not None
        if isinstance(local, TransformersCaptioner):
            return local.answers(list(zip(frames, asked, strict=True)))
        several: Callable[[Sequence[NDArray[Any]]], Sequence[str | Exception]] | None = getattr(local, "batch", None)
        if several is None or self.on.device == "cpu":
            return Passes(self.name, RunsOn())(frames, lambda some: [local(frame) for frame in some], None)
        return Passes(self.name, self.on, snug=True)(frames, several, None)

    def _asked(self, batch: Batch, i: int) -> tuple[str, NDArray[Any] | None, NDArray[Any] | None] | None:
        """Prompt, frames and audio that a sample is asked about; None where it is not."""
        frames = batch.views[self._view][i] if self._view is not None else None
        sound = batch.views[self._sound][i] if self._sound is not None else None
        sample = {name: values[i] for name, values in batch.columns.items()}
        words = prompts.values_of(self.template, sample | {"text": batch.text[i], "kind": batch.kind[i]})
        is_asked = (frames is not None or sound is not None) if self.needs else all(words.values())
        if not is_asked or (self.use.unless_given and clean(batch.text[i] or "")):
            return None
        return self.template.format_map(words), frames, sound

    def _answered(self, body: Mapping[str, Any], until: float) -> dict[str, Any]:
        """The fields of an answer, which is kept once it is known to be one."""
        assert self._endpoint is not None, "load it first"
        if self._kept is None:
            return self._values(self._endpoint.ask(body, until))
        key = key_of(
            [self.options.build, body] if self.use.serve is None else [self.options.build, self.use.serve, body]
        )
        kept = self._kept.get(key)
        if kept is not None:
            return self._values(Answer(*kept))
        answer = self._endpoint.ask(body, until)
        values = self._values(answer)
        self._kept.put(key, answer)
        return values

    def _values(self, answer: Answer) -> dict[str, Any]:
        by = {f"{self.name}_by": self._by(answer.model)}
        if self.schema is None:
            return by | {self.name: answers.text_of(answer.text, self.use.max_chars)}
        whole, found = answers.values_of(answer.text, self.schema, self.use.max_chars)
        return by | {self.name: whole} | {f"{self.name}_{key}": value for key, value in found.items()}

    def _by(self, model: str) -> str:
        prompt = digest(self.template.encode())[:16]
        return json.dumps({"model": model, "prompt": prompt, "sampling": self._sampling()}, sort_keys=True)

    def _sampling(self) -> dict[str, Any]:
        """Keys of a request that say how words are drawn."""
        use = self.use.sampling
        most = max_tokens_of(self.use) if self._local is None else use.max_tokens or MAX_NEW_TOKENS
        given = {"temperature": use.temperature, "max_tokens": most, "seed": use.seed}
        return {**use.extra, **{key: value for key, value in given.items() if value is not None}}

    def _body(self, prompt: str, frames: NDArray[Any] | None, sound: NDArray[Any] | None) -> dict[str, Any]:
        """The request: frames in order, then audio, then the prompt."""
        use = self.use
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(frame, use.format)}}
            for frame in (() if frames is None else frames)
        ]
        if sound is not None:
            wav = base64.b64encode(encode_wav(sound, RATE)).decode()
            content.append({"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}})
        content.append({"type": "text", "text": prompt})
        said: dict[str, Any] = {"model": use.model, "messages": [{"role": "user", "content": content}]}
        if self.schema is not None:
            asked = {"name": use.name, "strict": True, "schema": self.schema}
            said["response_format"] = {"type": "json_schema", "json_schema": asked}
        return self._sampling() | said

    def _fields(self) -> tuple[SignalField, ...]:
        name, properties = self.name, self.schema["properties"] if self.schema is not None else {}
        kinds = tuple(
            kind
            for kind in KINDS
            if not self.needs or (self._view and kind in VISUAL) or (self._sound and kind in AUDIBLE)
        )
        whole = "Caption" if self.schema is None else "Answer, as JSON,"
        return (
            Text(name, kinds=kinds, about=f"{whole} of {self.use.model}."),
            Text(f"{name}_by", kinds=kinds, about="JSON: the model that answered, the prompt's digest, the sampling."),
            *(answers.field_of(f"{name}_{key}", spec, kinds) for key, spec in properties.items()),
        )


def preset_of(use: CaptionerUse) -> Preset | None:
    """The preset that a captioner's `schema` names; None where it names none.

    Raises:
        CurateError: there is none of that name; with the nearest.
    """
    name = use.schema_
    if not isinstance(name, str):
        return None
    if name not in PRESETS:
        raise CurateError(f"no schema `{name}`{meant(name, PRESETS)}", f"there are: {', '.join(PRESETS)}; or write one")
    return PRESETS[name]


def schema_of(use: CaptionerUse) -> dict[str, Any] | None:
    """The JSON schema of a captioner's answers, as servers are sent it; None where they are text.

    Raises:
        CurateError: an unknown preset; a schema that is none.
    """
    preset = preset_of(use)
    found = preset.schema if preset is not None else use.schema_
    if not isinstance(found, dict):
        return None
    answers.check_schema(found)
    return cast(dict[str, Any], answers.strict(found))


def template_of(use: CaptionerUse) -> str:
    """The template of a captioner's prompt.

    Raises:
        CurateError: an unknown preset; `of` is missing where the preset needs it, or given where nothing does.
    """
    preset = preset_of(use)
    template = use.prompt or (preset.prompt if preset is not None else PROMPT)
    needs_caption = use.prompt is None and "{caption}" in template
    if needs_caption and use.of is None:
        raise CurateError(f"the schema `{use.schema_}` needs `of`, the field that it rewrites", "e.g. of: caption_long")
    if use.of is not None and not needs_caption:
        raise CurateError("`of` is for the schema `rewrite` with its own prompt", "name the field in the prompt")
    return template.replace("{caption}", f"{{{use.of}}}") if needs_caption else template


def _local(use: CaptionerUse) -> Captioner:
    found = captioner_of(use.model, use.sampling.max_tokens or MAX_NEW_TOKENS)
    if use.prompt is not None and not isinstance(found, TransformersCaptioner):
        raise CurateError(f"captioner {use.name} is of your own and sees the image alone", "leave its prompt out")
    return found


def data_url(frame: NDArray[np.uint8], kind: str) -> str:
    """A frame, uint8 `(H, W, 3)` sRGB, as a `data:` url: jpeg of `QUALITY`, or png. Equal pixels give equal text."""
    if kind == "jpeg":
        coded = encode_jpeg(frame, QUALITY)
    else:
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(frame)).save(out, "PNG")
        coded = out.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(coded).decode()}"
