"""A client of OpenAI-compatible endpoints: one chat completion, with limits, retries and a time that it never passes.

Messages of errors hold no address and no key: they go to the ledger, which is published.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.schema.errors import CurateError, FetchError
from curate.schema.recipe import CaptionerUse
from curate.signals.answers import AnswerError, Refusal
from curate.signals.meter import Counts
from curate.sources.fetch import retry_after

if TYPE_CHECKING:
    import httpx

BACK_OFF = 1.0
"""Seconds before the second attempt; twice as many before each further one, all shortened by up to a half by chance."""

CHECK_SECONDS = 5.0
"""How long an endpoint may take to say that it is there, before a run."""

MAX_BYTES = 4 << 20
"""Of an answer; a longer one is read no further."""

MAX_TOKENS = 512
"""Of an answer, where the recipe says nothing."""

_TRANSIENT = (408, 425, 429)
_LONG_QUEUE = 60.0
"""Seconds; who waits longer for a turn waits for the rate, not for the rest of a batch."""

_SAID = 200
"""Characters of a server's own words in a message."""


class EndpointError(FetchError):
    """A call that gave no answer.

    Attributes:
        attempts: that were made.
    """

    attempts = 1


class Answer(NamedTuple):
    """What an endpoint said.

    Attributes:
        text: the content of the message, as it came.
        model: who answered, as the server says it.
    """

    text: str
    model: str


class Endpoint:
    """One captioner's endpoint. It may be asked from several threads.

    Args:
        use: the captioner.
        meter: counts its requests and tokens.
        url: of the server, where the captioner names none.

    Raises:
        CurateError: the environment has no key, or none that can be sent.
    """

    def __init__(self, use: CaptionerUse, meter: Counts, url: str | None = None) -> None:
        import httpx

        self._use, self._meter = use, meter
        self._key = key_of_environment(use)
        at_once = use.calls.concurrency
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            trust_env=url is None,  # no proxy stands between a worker and its own server
        )
        self._url = f"{(url or str(use.endpoint)).rstrip('/')}/chat/completions"

    def ask(self, body: Mapping[str, Any], until: float) -> Answer:
        """The answer to one request, tried again where the error may pass.

        Args:
            body: of the request, as JSON values.
            until: time of `time.monotonic()` after which nothing is waited for.

        Raises:
            EndpointError: no attempt gave an answer.
            AnswerError, Refusal: it is empty, cut off, or a refusal.
            CurateError: no sample will get one: a budget is spent, the key is refused, there is no such model, or the
                rate lets this request wait beyond `until`.
        """
        data, attempt = json.dumps(body).encode(), 1
        while True:
            try:
                self._wait_for_turn(until)
                return self._answer(self._posted(data, until))
            except EndpointError as exc:
                exc.attempts = attempt
                grown = BACK_OFF * 2 ** (attempt - 1) * random.uniform(0.5, 1)
                wait = max(grown, exc.retry_after)
                if not exc.transient or attempt == self._use.calls.attempts or time.monotonic() + wait > until:
                    raise
            time.sleep(wait)
            attempt += 1

    def _wait_for_turn(self, until: float) -> None:
        wait = self._meter.turn(self._use.name)
        if time.monotonic() + wait <= until:
            time.sleep(wait)
        elif wait <= _LONG_QUEUE:
            raise EndpointError("no time is left for it: the others of its batch took all")
        else:
            raise CurateError(
                f"captioner {self._use.name}: a request would wait {wait:.0f} s for its turn, more than it may",
                "raise requests_per_minute or tokens_per_minute, or run with fewer workers; what was committed is kept",
            )

    def _posted(self, data: bytes, until: float) -> Any:
        """The JSON value that the server answers with."""
        import httpx

        now = time.monotonic()
        left = max(0.1, min(self._use.calls.timeout, until - now))
        late = f"no answer within {left:.3g} s"
        answer = bytearray()
        try:
            with self._client.stream(
                "POST", self._url, content=data, headers={"Content-Type": "application/json"}, timeout=left
            ) as response:
                for part in response.iter_bytes():
                    answer += part
                    if len(answer) > MAX_BYTES:
                        raise EndpointError(f"its answer has more than {MAX_BYTES >> 20} MiB")
                    if time.monotonic() > now + left:  # httpx limits each wait, not their sum
                        raise EndpointError(late, transient=True)
        except httpx.TimeoutException:
            raise EndpointError(late, transient=True) from None
        except httpx.ConnectError:
            raise EndpointError("its server cannot be connected to", transient=True) from None
        except httpx.HTTPError:
            raise EndpointError("the connection was lost", transient=True) from None
        if response.status_code != 200:
            raise self._refused(response, bytes(answer))
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            what = "a page of HTML" if b"<html" in answer[:1000].lower() else "no JSON" if answer else "nothing"
            raise EndpointError(f"its server answers {what}", transient=True) from None

    def _refused(self, response: httpx.Response, answer: bytes) -> Exception:
        """What a status other than 200 means."""
        status, name = response.status_code, self._use.name
        if status in (401, 403):
            return _unwelcome(self._use, bool(self._key), status)
        if status == 404:
            return CurateError(
                f"captioner {name}: its endpoint has no model {self._use.model}, or no chat completions (status 404)",
                "see model and endpoint, the base url, which often ends with /v1",
            )
        if status == 429 and b"insufficient_quota" in answer:
            return CurateError(
                f"captioner {name}: the account has no quota left (status 429)", "run the same command later"
            )
        passing = status in _TRANSIENT or (status >= 500 and status != 501)
        headers = {key.lower(): value for key, value in response.headers.items()}
        said = "" if passing else self._words(answer)
        return EndpointError(f"status {status}{said}", passing, retry_after(headers) if passing else 0.0)

    def _words(self, answer: bytes) -> str:
        """`: ` and what a server says of an error, without the key, which it may repeat."""
        try:
            said = json.loads(answer)["error"]["message"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        words = " ".join(str(said).split())
        return f": {words.replace(self._key, '...') if self._key else words}"[:_SAID]

    def _answer(self, said: Any) -> Answer:
        """The answer in a chat completion, whose tokens are counted."""
        try:
            choice, model = said["choices"][0], said.get("model")
            message, reason = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
            used = (said.get("usage") or {}).get("total_tokens")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise EndpointError("its server answers JSON that is no chat completion", transient=True) from None
        # a server that does not count is taken to have used what it may
        self._meter.add(self._use.name, max(0, used) if isinstance(used, int) else max_tokens_of(self._use))
        if refusal or reason == "content_filter":
            raise Refusal(f"it refuses: {' '.join(str(refusal or reason).split())[:_SAID]}")
        if reason == "length":
            raise AnswerError(f"its answer was cut off at {max_tokens_of(self._use)} tokens (sampling.max_tokens)")
        if not isinstance(text, str) or not text.strip():
            raise AnswerError("it answers nothing")
        return Answer(text, model if isinstance(model, str) and model else self._use.model)


def check_endpoint(use: CaptionerUse) -> str | None:
    """Ask a captioner's endpoint which models it has (GET .../models). A caption is not asked for.

    Returns:
        A sentence where it does not tell, or tells of others; None where it has the model.

    Raises:
        CurateError: nobody answers there, or the key is refused.
    """
    import httpx

    key = key_of_environment(use)
    try:
        answer = httpx.get(
            f"{str(use.endpoint).rstrip('/')}/models",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=CHECK_SECONDS,
        )
    except httpx.HTTPError as exc:
        late = isinstance(exc, httpx.TimeoutException)
        what = f"does not answer within {CHECK_SECONDS:g} s" if late else "cannot be connected to"
        raise CurateError(
            f"captioner {use.name}: its endpoint {what}", "start its server, or mend `endpoint`, the base url"
        ) from None
    if answer.status_code in (401, 403):
        raise _unwelcome(use, bool(key), answer.status_code)
    try:
        models = [str(one["id"]) for one in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError, RecursionError):
        models = []
    if use.model in models:
        return None
    if not models:
        return f"captioner {use.name}: its endpoint answers and does not tell its models; {use.model} was not tried"
    told = ", ".join(models[:5]) + (f" and {len(models) - 5} more" if len(models) > 5 else "")
    return f"captioner {use.name}: its endpoint does not name {use.model} among its models: {told[:_SAID]}"


def _unwelcome(use: CaptionerUse, has_key: bool, status: int) -> CurateError:
    what = f"refuses the key of {use.calls.api_key_env}" if has_key else "asks for a key"
    return CurateError(f"captioner {use.name}: its endpoint {what} (status {status})", "see calls.api_key_env")


def max_tokens_of(use: CaptionerUse) -> int:
    """Most tokens of an answer."""
    return use.sampling.max_tokens or MAX_TOKENS


def key_of_environment(use: CaptionerUse) -> str:
    """The key of a captioner; empty where none is to be sent.

    Raises:
        CurateError: the variable is not set, or holds what no header can.
    """
    name = use.calls.api_key_env
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise CurateError(f"the environment has no {name}, the key of captioner {use.name}", f"export {name}=...")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise CurateError(f"{name} holds no key: it has characters that no header can hold")
    return key
