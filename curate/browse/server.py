"""The ASGI application: a page, its questions, thumbnails and media, for who has the token, on the host asked for.

Every path begins with a token that is drawn when the server starts, so another user or page of the machine finds
nothing; `Host` is checked, so a name that is rebound to this machine is refused; the page's policy allows nothing but
the server's own files. Nothing is written but the cache, and the recipe that was named, when the page's user says so.
"""

from __future__ import annotations

import ipaddress
import json
import mimetypes
import re
import secrets
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from curate.browse import query
from curate.browse.columns import Columns
from curate.browse.compare import Compared
from curate.browse.decoded import Decoded
from curate.browse.embeddings import Embeddings
from curate.browse.labels import FORMATS, Labels
from curate.browse.looks import PLACE, Looks
from curate.browse.models import Models
from curate.browse.moving import Moving
from curate.browse.table import Browsed, check_row
from curate.card.explain import limits_of, signals_of, tokens_of
from curate.card.media import Media
from curate.schema.errors import CurateError
from curate.schema.recipe import Recipe

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of every answer."""

ASKED_BYTES = 1 << 20
"""A question from the page at most."""

PIECE = 1 << 20
"""Bytes of a medium that are read at a time."""

_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_PLAYED = {"mp4", "m4v", "m4a", "webm", "mp3", "ogg", "oga", "wav", "flac", "mov", "mkv"}
_STATIC = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
_BYTES = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def make_app(
    browsed: Browsed, token: str, names: frozenset[str], recipe: Path | None = None, other: Browsed | None = None
) -> ASGIApp:
    """The application.

    Args:
        browsed: the build.
        recipe: file that moved rules may be written into.
        other: a build to compare it with.
        token: first part of every path.
        names: of this machine, in lower case; beside them `Host` may be any address in numbers, which no name can
            be bound to.
    """
    pages = _Pages(browsed, recipe)
    moving, maps = pages.moving, pages.embeddings.maps
    routes = [
        Route("/{token}/", pages.page),
        Route("/{token}/static/{name}", pages.static),
        Route("/{token}/about", _got(partial(pages.about, other is not None))),
        Route("/{token}/facets", _asked(pages.facets), methods=["POST"]),
        Route("/{token}/rules", _got(moving.about)),
        Route("/{token}/judge", _asked(moving.judge), methods=["POST"]),
        Route("/{token}/strip", _asked(moving.strip), methods=["POST"]),
        Route("/{token}/preview", _asked(moving.preview), methods=["POST"]),
        Route("/{token}/save", _asked(moving.save), methods=["POST"]),
        Route("/{token}/map/about", _asked(maps.about), methods=["POST"]),
        Route("/{token}/map/points", _asked(maps.points), methods=["POST"]),
        Route("/{token}/map/legend", _asked(maps.legend), methods=["POST"]),
        Route("/{token}/map/codes", _asked(maps.codes), methods=["POST"]),
        Route("/{token}/map/row", _asked(maps.row), methods=["POST"]),
        Route("/{token}/labels", _got(pages.labels.told)),
        Route("/{token}/label", _asked(pages.labels.mark), methods=["POST"]),
        Route("/{token}/labels.{form}", pages.exported),
        *pages.of_samples(""),
    ]
    if other is not None:
        others = _Pages(other, None)
        compared = Compared(browsed, pages.columns, other, others.columns)
        routes += [
            Route("/{token}/compare", _got(compared.about)),
            Route("/{token}/spreads", _got(compared.spreads)),
            Route("/{token}/flips", _asked(compared.flips), methods=["POST"]),
            *others.of_samples("other/"),
        ]
    return _Guard(Starlette(routes=routes), token, names)


class _Guard:
    """Refuses who has no token or another host, and sets the headers of all answers."""

    def __init__(self, app: ASGIApp, token: str, names: frozenset[str]) -> None:
        self._app, self._token, self._names = app, token.encode(), names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = [name for name, _ in message["headers"]]
                message["headers"] = [*message["headers"], *(h for h in _HEADERS if h[0] not in given)]
            await send(message)

        request = Request(scope)
        given = scope["path"].split("/")[1].encode()
        answer: ASGIApp = self._app
        if not is_here(request.headers.get("host", ""), self._names):
            answer = PlainTextResponse("this host is not served here\n", 403)
        elif not secrets.compare_digest(given, self._token):
            answer = PlainTextResponse("open the address that curate browse printed: it has a token\n", 403)
        await answer(scope, receive, with_headers)


def is_here(host: str, names: frozenset[str]) -> bool:
    """True if a `Host` header is an address in numbers or one of `names`, whatever its port: another name may have been
    bound to this machine's address by a page that wants to read what is served here (DNS rebinding)."""
    name = re.sub(r":\d+$", "", host.strip().lower())
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in names
    return True


class _Pages:
    def __init__(self, browsed: Browsed, recipe: Path | None) -> None:
        self._browsed = browsed
        self.columns = Columns(browsed)
        self.labels = Labels(browsed, self.columns)
        self.moving = Moving(browsed, self.columns, self.labels, recipe)
        self._media = Media(browsed.tables)
        models = Models(browsed.tables.build)
        self.embeddings = Embeddings(browsed, self.columns, models)
        self._decoded = Decoded(models, browsed.cache / "decoded")
        self._looks = Looks(self._media, browsed.cache / "looks")
        self._tables = threading.Lock()  # the build's tables answer one question at a time

    async def page(self, _: Request) -> Response:
        return Response(_asset("index.html"), media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(_asset(name), media_type=_STATIC[name])

    async def exported(self, request: Request) -> Response:
        """All labels as a file."""
        form = request.path_params["form"]
        if form not in FORMATS:
            return PlainTextResponse("there is no such file\n", 404)
        made = await run_in_threadpool(lambda: self.labels.exported(form))
        named = {"content-disposition": f'attachment; filename="labels.{form}"'}
        return Response(made, media_type=FORMATS[form], headers=named)

    def of_samples(self, prefix: str) -> list[Route]:
        """Routes of what is told of rows, some and single ones."""
        start = "/{token}/" + prefix
        return [
            Route(start + "page", _asked(self.found), methods=["POST"]),
            Route(start + "sample/{n:int}", self.sample),
            Route(start + "tokens/{n:int}", self.tokens),
            Route(start + "decoded/{n:int}", self.decoded),
            Route(start + "decoded/{n:int}/{file:int}", self.decoded_file),
            Route(start + "look/{n:int}/{size}", self.look),
            Route(start + "medium/{n:int}", self.medium),
        ]

    def about(self, compared: bool) -> dict[str, Any]:
        manifest, fields = self._browsed.tables.manifest, self._browsed.fields
        return {
            "name": manifest.name,
            "version": manifest.version,
            "counts": manifest.counts.model_dump(mode="json"),
            "numbers": self._browsed.numbers,
            "about": {name: {"about": field.about, "unit": field.unit} for name, field in fields.items()},
            "compared": compared,
            "embeddings": self.embeddings.fields,
            "texts": self.embeddings.texts,
        }

    def found(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.labels.follow()
        return query.page(self._browsed, asked, self.embeddings.sets(asked))

    def facets(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.labels.follow()
        return query.facets(self._browsed, asked, self.embeddings.sets(asked))

    async def sample(self, request: Request) -> Response:
        """All of a row: what the table says, what other signals gave, and where its numbers lie among all samples."""

        def tell() -> dict[str, Any]:
            row, browsed = self._row(request), self._browsed
            signals: dict[str, Any] = {}
            if row["level"] == "sample":
                with self._tables:
                    signals = signals_of(browsed.tables, row["part"], row["record_id"], row["id"])
            numbers = {name: row.pop(name) for name in browsed.numbers}
            texts = {name: query.seen(row.pop(name)) for name in browsed.texts}
            columns = self.columns
            return {
                "row": {name: query.seen(one) if isinstance(one, str) else one for name, one in row.items()},
                "numbers": [
                    {"field": name, "value": value, "share": columns.share(name, value)}
                    for name, value in numbers.items()
                    if value is not None
                ],
                "texts": {name: said for name, said in texts.items() if said},
                "others": {n: _told(v) for n, v in signals.items() if n not in numbers and n not in texts},
                "embeddings": [name for name in self.embeddings.fields if _is_there(signals.get(name))],
                "limits": limits_of(Recipe.model_validate(browsed.tables.manifest.recipe)),
            }

        return await _answer(tell)

    async def tokens(self, request: Request) -> Response:
        """What each stream holds of a kept sample, and in which shard."""

        def tell() -> dict[str, str]:
            row = self._row(request)
            with self._tables:
                return tokens_of(self._browsed.tables, [row["id"]]).get(row["id"], {})

        return await _answer(tell)

    async def decoded(self, request: Request) -> Response:
        """What the tokens of a kept sample decode to."""
        return await _answer(lambda: self._decoded.panel(self._row(request, ("n", "id", "part", "outcome"))))

    async def decoded_file(self, request: Request) -> Response:
        numbers = request.path_params
        return await _file(lambda: self._decoded.file(numbers["n"], numbers["file"]))

    async def look(self, request: Request) -> Response:
        response = await _file(lambda: self._looks.look(self._row(request, PLACE), request.path_params["size"]))
        if response.status_code == 200:
            response.headers["cache-control"] = "private, max-age=86400, immutable"
        return response

    async def medium(self, request: Request) -> Response:
        """The bytes as they came, whole or a range; only what a browser plays, and never as a document."""
        try:
            row = await run_in_threadpool(lambda: self._row(request, PLACE))
            suffix = (row["member"] or "").rpartition(".")[2]
            if suffix not in _PLAYED:
                return _refusal(f"a browser does not play {suffix or 'this'}", 415)
            tar = self._browsed.tables.checked(row["media"])
        except CurateError as error:
            return _refusal(str(error), 404)
        size = row["bytes"]
        span = _span(request.headers.get("range"), size)
        if span is None:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        start, stop = span
        mime = mimetypes.guess_type(f"x.{suffix}")[0] or _BYTES
        headers = {"accept-ranges": "bytes", "content-length": str(stop - start)}
        partial = "range" in request.headers
        if partial:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"

        def pieces() -> Any:
            for at in range(start, stop, PIECE):
                yield self._browsed.tables.build.read_range(tar, row["offset"] + at, min(PIECE, stop - at))

        return StreamingResponse(pieces(), 206 if partial else 200, headers, mime)

    def _row(self, request: Request, columns: tuple[str, ...] = ()) -> dict[str, Any]:
        return query.sample(self._browsed, check_row(request.path_params["n"]), columns)


def _got(answer: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that is asked nothing."""

    async def endpoint(_: Request) -> Response:
        return await _answer(answer)

    return endpoint


def _asked(answer: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers a question in JSON."""

    async def endpoint(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > ASKED_BYTES:
                return _refusal("the question is too long")
        try:
            asked = json.loads(body)
        except ValueError:
            return _refusal("the question is no JSON")
        if not isinstance(asked, dict):
            return _refusal("the question is no object")
        return await _answer(lambda: answer(asked))

    return endpoint


async def _answer(work: Callable[[], Any]) -> Response:
    """What `work` gives, bytes as they are and all else as JSON, or the sentence that says why not."""
    try:
        given = await run_in_threadpool(work)
        return Response(given, media_type=_BYTES) if isinstance(given, bytes) else JSONResponse(query.plain(given))
    except CurateError as error:
        return _refusal(str(error))
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        return _refusal(f"the build's tables could not be read: {error}", 500)


def _is_there(told: object) -> bool:
    """True if what `signals_of` tells of a vector is no failure and no null."""
    return isinstance(told, str) and told.startswith("vector of")


async def _file(work: Callable[[], tuple[bytes, str]]) -> Response:
    """Bytes and their type, or the sentence that says why not."""
    try:
        data, mime = await run_in_threadpool(work)
    except CurateError as error:
        return _refusal(str(error), 404)
    return Response(data, media_type=mime)


def _told(value: object) -> str:
    return "none" if value is None else query.seen(str(value)) or ""


def _refusal(said: str, status: int = 400) -> Response:
    return JSONResponse({"error": said}, status)


def _asset(name: str) -> bytes:
    return (files("curate.browse") / "static" / name).read_bytes()


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end of a `Range` of one part (RFC 9110, section 14); None where it cannot be given."""
    if header is None:
        return 0, size
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else None
    start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else None
