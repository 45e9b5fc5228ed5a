"""A process that holds a store as a run does, and does what it is told on its standard input, line by line.

    python lease_holder.py URI RENEW_SECONDS EXPIRES_SECONDS [MACHINE]

MACHINE makes it believe to be on another machine. To `go` it says `holds` or `refused: MESSAGE`, to `commit TEXT` then
`committed` or `refused: MESSAGE`, to `done` it lets go and says `free`; it ends at the end of its input.
"""

from __future__ import annotations

import sys

from curate.schema.errors import CurateError
from curate.storage import lease, open_store
from curate.storage.base import Lease


def main() -> None:
    uri, renew, expires, *machine = sys.argv[1:]
    lease.RENEW_SECONDS, lease.EXPIRES_SECONDS = float(renew), float(expires)
    if machine:
        lease._machine = lambda: machine[0]
    store = open_store(uri)
    print("ready", flush=True)
    while sys.stdin.readline():
        try:
            with store.acquire("manifest.json") as ours:
                print("holds", flush=True)
                while (line := sys.stdin.readline()) not in ("done\n", ""):
                    print(tried(ours, line.removeprefix("commit ").strip()), flush=True)
            print("free", flush=True)
        except CurateError as exc:
            print(f"refused: {exc.message}", flush=True)


def tried(ours: Lease, text: str) -> str:
    try:
        ours.commit(text.encode())
    except CurateError as exc:
        return f"refused: {exc.message}"
    return "committed"


if __name__ == "__main__":
    main()
