"""A server of the OpenAI protocol on loopback. It answers from what it sees, and fails as it is told to."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import sys
import threading
import time
import wave
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
}
MODEL = "seen-1"
REFUSED = "I'm sorry, but I can't help with that."


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        at: when it came, of `time.monotonic()`.
        frames: by frame the name of its mean colour; what the image is and how large, e.g. `JPEG 64x48`.
        sound: seconds of audio and its peak; None where none came.
    """

    at: float
    key: str | None
    body: dict[str, Any]
    prompt: str
    frames: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sound: tuple[float, int] | None = None

    @property
    def said(self) -> str:
        """What the server says of it."""
        heard = "" if self.sound is None else f" {self.sound[0]:.1f} s of sound."
        return f"Frames: {', '.join(self.frames) or 'none'}.{heard}"


class ChatServer(ThreadingHTTPServer):
    """Attributes:
    faults: what happens to the next requests, one each (`ok` for none); then `always` holds.
    seconds: how long an answer takes.
    tokens: what an answer says that it used; None: nothing.
    deadly: a prompt that holds it ends the process; empty: none does.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.asked: list[Asked] = []
        self.faults: deque[str] = deque()
        self.always = "ok"
        self.seconds, self.retry_after = 0.0, 1.0
        self.tokens: int | None = 10
        self.deadly = ""
        self.most_at_once = 0
        self.closing = threading.Event()
        self._at_once, self._lock = 0, threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""

    @contextmanager
    def noted(self, asked: Asked) -> Iterator[str]:
        """Note a request for as long as it is answered; the fault that it gets."""
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.faults.popleft() if self.faults else self.always
        try:
            yield fault
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def running() -> Iterator[ChatServer]:
    with ChatServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": MODEL}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, {"error": {"message": "no such path"}})
            return
        asked = _understood(body, self.headers.get("Authorization"))
        if self.server.deadly and self.server.deadly in asked.prompt:
            os._exit(3)
        with self.server.noted(asked) as fault:
            time.sleep(self.server.seconds)
            self._answer(asked, fault)

    def _answer(self, asked: Asked, fault: str) -> None:
        match fault:
            case "429" | "500" | "503":
                self._send(int(fault), {"error": {"message": "later"}}, {"Retry-After": f"{self.server.retry_after:g}"})
            case "400" | "401" | "404":
                self._send(int(fault), {"error": {"message": f"not with {asked.key}"}})
            case "quota":
                self._send(429, {"error": {"code": "insufficient_quota"}})
            case "drop":
                self.close_connection = True
            case "never":
                self.server.closing.wait(60)
                self.close_connection = True
            case "drip":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                while not self.server.closing.wait(0.1):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            case "html":
                self._send(200, b"<!DOCTYPE html><html><body>Sign in</body></html>")
            case "nothing":
                self._send(200, b"")
            case "flood":
                self._send(200, b" " * (5 << 20))
            case "no choices":
                self._send(200, {"object": "list", "data": []})
            case "refusal field":
                self._complete(None, refusal="I will not.")
            case "filter":
                self._complete("A", reason="content_filter")
            case "length":
                self._complete("A picture of a", reason="length")
            case "ok":
                self._complete(_structured(asked) if "response_format" in asked.body else asked.said)
            case content:
                self._complete(content.removeprefix("say "))

    def _complete(self, content: str | None, reason: str = "stop", refusal: str | None = None) -> None:
        message = {"role": "assistant", "content": content, "refusal": refusal}
        said: dict[str, Any] = {"id": "1", "object": "chat.completion", "model": MODEL}
        said["choices"] = [{"index": 0, "finish_reason": reason, "message": message}]
        if self.server.tokens is not None:
            said["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": self.server.tokens}
        self._send(200, said)

    def _send(self, status: int, said: dict[str, Any] | bytes, headers: dict[str, str] | None = None) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written to the terminal."""


def _understood(body: dict[str, Any], key: str | None) -> Asked:
    [message] = body["messages"]
    frames, images, words, sound = [], [], [], None
    for part in message["content"]:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            assert head == f"data:image/{str(image.format).lower()};base64"
            images.append(f"{image.format} {image.width}x{image.height}")
            frames.append(_colour(np.asarray(image.convert("RGB"), float).mean((0, 1))))
        elif part["type"] == "input_audio":
            assert part["input_audio"]["format"] == "wav"
            with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"], validate=True))) as file:
                assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
                values = struct.unpack(f"<{file.getnframes()}h", file.readframes(file.getnframes()))
                sound = (len(values) / file.getframerate(), max(map(abs, values)))
        else:
            words.append(part["text"])
    return Asked(time.monotonic(), key, body, "\n".join(words), frames, images, sound)


def _colour(mean: np.ndarray[Any, Any]) -> str:
    return min(COLOURS, key=lambda name: float(np.square(mean - COLOURS[name]).sum()))


def _structured(asked: Asked) -> str:
    form = asked.body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    return json.dumps(_value(form["json_schema"]["schema"], asked))


def _value(schema: dict[str, Any], asked: Asked) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            return {name: _value(part, asked) for name, part in schema["properties"].items()}
        case "array":
            return [_value(schema["items"], asked)]
        case "string":
            return asked.said
        case "integer":
            return len(asked.frames)
        case "number":
            return 0.1
    return True


def main() -> None:
    """As a program, whose argument is the port: a prompt that says `crash` ends it."""
    with ChatServer(int(sys.argv[1])) as server:
        server.deadly = "crash"
        server.serve_forever()


if __name__ == "__main__":
    main()
