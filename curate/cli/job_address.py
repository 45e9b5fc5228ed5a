"""Where the job server is, and the token that it wants. Settled before Ray is imported, which reads it then."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from curate.schema.errors import CurateError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def resolve_address(given: str | None) -> str:
    """The job server's address: as given, else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else this machine's.

    Raises:
        CurateError: not an http(s) address, or one with a password in it.
    """
    where, address = "--address", given
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if address is None and os.environ.get(name):
            where, address = name, os.environ[name]
    if address is None or address == "auto":
        return DEFAULT_ADDRESS
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CurateError(
            f"{where} is {address!r}, and a job server's address starts with http:// or https://",
            "it is the dashboard of the head node: --address http://HEAD:8265",
        )
    if parts.username or parts.password:
        raise CurateError(
            f"{where} holds a password, which would be shown", "leave it out; the token goes into RAY_AUTH_TOKEN"
        )
    return address.rstrip("/")


def enable_ray_token_auth() -> None:
    """Ray's client sends a token only in the mode `token`, and servers since 2.60 want one unless told otherwise."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ["RAY_AUTH_MODE"] = "token"
