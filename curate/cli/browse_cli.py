"""`curate browse`: the workbench, a page to look through a build."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.inspect_build import Build
from curate.cli.output import console
from curate.schema.errors import CurateError

CACHE_VARIABLE = "XDG_CACHE_HOME"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def browse(
    build: Build,
    other: Annotated[str | None, typer.Argument(help="A build to compare it with, folder or s3:// uri.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Recipe that moved rules may be written into, when you say so."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own open it to the net.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for its table, thumbnails and labels. Default: curate in your cache folder."),
    ] = None,
) -> None:
    """Look through a build in a browser: find samples, inspect each, and move rules to see what they would keep.

    Prints an address with a token; who has it may look. The build is only read; the recipe is written where you name
    one and press Save.

    **Examples**

    ```sh
    curate browse build/quickstart
    curate browse build/mine --recipe mine.yaml
    curate browse build/mine build/before
    curate browse s3://bucket/mine --port 8700
    ```
    """
    try:
        from curate.browse.serve import serve
        from curate.browse.server import make_app
    except ModuleNotFoundError as error:
        raise CurateError(f"curate browse needs {error.name}", "pip install 'curate-tokens[browse]'") from error
    from curate.browse.table import open_table
    from curate.storage import open_store

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer waits 40 ms for the browser's ACK
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise CurateError(
                f"cannot listen on {host} port {port}: {error.strerror}", "take another: --port 0 takes a free one"
            ) from error
        port = listening.getsockname()[1]
        place = cache or Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache") / "curate" / "browse"
        with ExitStack() as opened:
            browsed = opened.enter_context(open_table(open_store(build), place))
            before = None if other is None else opened.enter_context(open_table(open_store(other), place))
            token = secrets.token_urlsafe(18)
            named = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
            own = () if host in _LOOPBACK else (socket.gethostname(), socket.getfqdn())
            names = frozenset(name.lower() for name in (host, "localhost", *own))
            app = make_app(browsed, token, names, recipe, before)

            def ready() -> None:
                console().print(f"http://{named}:{port}/{token}/", soft_wrap=True)
                console().print("Ctrl-C ends it", style="dim")

            serve(app, listening, ready)
