"""Another program that ends when this one's starter does, by SIGKILL too: `leashed FD COMMAND ...`, where FD is the
reading end of a pipe whose other end the starter holds."""

from __future__ import annotations

import os
import sys

from curate.helper.limits import die_with


def main() -> None:
    lifeline, *command = sys.argv[1:]
    os.set_inheritable(int(lifeline), True)
    die_with(int(lifeline))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
