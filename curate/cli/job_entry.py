"""What a job begins with on a cluster: it looks whether this Python can run curate, says in one sentence what it lacks,
and becomes `curate run`.

It is sent beside the recipe, with what `needs` says of the sender's installation. It imports the standard library alone
and keeps to what any Python 3 reads, since that is what may be there.
"""

import json
import os
import re
import socket
import sys

FILE, NEEDS = "curate_job.py", "curate_job.json"
"""Names that this file and its needs have in the job's folder."""

MOST = 5
"""Names of packages that are told."""

LACKS = 2
"""Exit code of a job whose Python cannot run curate."""


def needs(with_code: bool) -> "dict[str, object]":
    """What this installation of curate asks of a Python: `python`, the oldest version that will do, and `packages`,
    distributions by name; curate's own among them where its code is not sent."""
    from importlib.metadata import metadata, requires

    asked = [one for one in requires("curate-tokens") or [] if "extra ==" not in one]
    names = [re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in asked]
    names = [name for name in names if _is_here(name)]  # some are for other systems
    oldest = re.search(r">=\s*([0-9.]+)", metadata("curate-tokens")["Requires-Python"] or "")
    python = [int(part) for part in oldest[1].split(".")] if oldest else [3, 0]
    return {"python": python, "packages": names + ["curate-tokens"] * (not with_code)}


def _is_here(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def lacks(wanted: "dict[str, list]") -> str:  # type: ignore[type-arg]
    """What this Python lacks, as a sentence; empty where it can run curate."""
    here = "%s (Python %d.%d.%d) on %s" % (sys.executable, *sys.version_info[:3], socket.gethostname())  # noqa: UP031
    way = "start Ray there in the environment that curate is installed in, or install curate there"
    if list(sys.version_info[: len(wanted["python"])]) < wanted["python"]:
        oldest = ".".join(str(part) for part in wanted["python"])
        return "the job's python is too old for curate, which needs %s: %s; %s" % (oldest, here, way)  # noqa: UP031
    missing = [name for name in wanted["packages"] if not _is_here(name)]
    if not missing:
        return ""
    more = " and %d more" % (len(missing) - MOST) if len(missing) > MOST else ""  # noqa: UP031
    return "the job's python lacks %s%s: %s; %s" % (", ".join(missing[:MOST]), more, here, way)  # noqa: UP031


def main() -> None:
    """Look, and become `curate` with this process's arguments."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    with open(os.path.join(folder, NEEDS)) as file:  # noqa: PTH118, PTH123
        said = lacks(json.load(file))
    if said:
        sys.stderr.write("curate: %s\n" % said)  # noqa: UP031
        sys.exit(LACKS)
    os.execv(sys.executable, [sys.executable, "-m", "curate.cli.main", *sys.argv[1:]])


if __name__ == "__main__":
    main()
