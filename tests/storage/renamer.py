"""Another process that writes, renames and removes in a folder until it is killed: `renamer.py FOLDER`."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from curate.storage import Folder

if __name__ == "__main__":
    store = Folder(Path(sys.argv[1]))
    store.write("gone/stays", b"1")  # folders go while their listing runs, but not from under the other writer
    for i in itertools.count():
        store.write(f"stage/part-{i % 40:05d}.parquet", b"rows")
        store.write(f"gone/{os.getpid()}-{i % 3}/deep/file", b"1")
        store.remove([f"gone/{os.getpid()}-{(i - 1) % 3}/deep/file", f"stage/part-{(i - 20) % 40:05d}.parquet"])
