"""Services for the tests of helper processes: each method does for real what native code does when it goes wrong."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from curate.schema.errors import CurateError, MediaError


class Odd(Exception):
    """Not promised to anybody."""


class Native:
    RAISES = (MediaError, CurateError)

    def __init__(self, start: str = "well") -> None:
        if start == "raises":
            raise CurateError("The weights are missing.", "Install them.")
        if start == "segfaults":
            self.segfault()
        self.held = b""

    @property
    def held_bytes(self) -> int:
        return len(self.held)

    def echo(self, *values: Any, **named: Any) -> Any:
        return named or (values[0] if len(values) == 1 else list(values))

    def size(self, data: bytes) -> int:
        return len(data)

    def hold(self, data: bytes) -> None:
        self.held = data

    def segfault(self) -> None:
        ctypes.string_at(0)

    def kill(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def exit(self, code: int) -> None:
        os._exit(code)

    def sleep(self) -> None:
        time.sleep(3600)

    def backtrack(self) -> None:
        """For ever in C, with the interpreter's lock held: no thread of the process can do a thing."""
        re.match(r"(a+)+$", "a" * 64 + "b")

    def backtrack_with_children(self, ready: str) -> None:
        """As `backtrack`, after it started a process of its own and wrote both ids to the file `ready`."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        Path(ready).with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
        Path(ready).with_suffix(".new").rename(ready)
        self.backtrack()

    def start_process(self) -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid

    def start_process_and_die(self, ready: str) -> None:
        Path(ready).write_text(str(self.start_process()))
        self.segfault()

    def fork_and_die(self) -> None:
        """The fork keeps the socket open."""
        if os.fork() == 0:
            time.sleep(3600)
        self.segfault()

    def close_socket(self) -> None:
        os.close(int(sys.argv[1]))
        time.sleep(3600)

    def eat(self) -> None:
        """Take memory until there is none."""
        eaten = []
        while True:
            eaten.append(np.ones(1 << 20, np.uint8))

    def eat_in_cpp(self) -> None:
        """An allocation in C++ that fails, as it does in a library's own threads: std::terminate."""
        new = ctypes.CDLL("libstdc++.so.6")._Znwm
        new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
        new(1 << 40)

    def chatter(self, megabytes: int) -> int:
        for stream in (sys.stdout, sys.stderr):
            for _ in range(megabytes):
                stream.write("x" * (1 << 20))
            print("the last line", file=stream, flush=True)
        return megabytes

    def chatter_for_ever(self) -> None:
        while True:
            os.write(2, b"y" * (1 << 16))

    def promised(self) -> None:
        raise MediaError("The video is damaged at 1.000 s.")

    def to_mend(self) -> None:
        raise CurateError("There is no shot detector 'x'.", "Use content.")

    def odd(self) -> None:
        raise Odd("it is\nodd")

    def a_set(self) -> Any:
        return {1, 2}

    def pid(self) -> int:
        return os.getpid()

    def open_files(self) -> list[str]:
        return [str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]

    def say(self, raw: bytes) -> None:
        """A process that was taken over: raw bytes in place of an answer."""
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as sock:
            sock.sendall(raw)
        time.sleep(3600)

    def each_or_die(self, values: list[int], alone: bool) -> list[list[object]]:
        """Dies of 13, hangs on 7."""
        if 13 in values:
            self.kill(signal.SIGSEGV)
        if 7 in values:
            time.sleep(3600)
        return [[value, "alone" if alone else "together"] for value in values]
