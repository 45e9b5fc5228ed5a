"""`curate submit`, `status`, `stop`: a recipe as a job on a Ray cluster."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import Json, named_values
from curate.cli.output import console, print_table
from curate.schema.errors import CurateError

if TYPE_CHECKING:
    from curate.cli.job_server import JobServer

Address = Annotated[
    str | None,
    typer.Option(
        help="The job server: the dashboard of the head node. Default: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, else "
        "`http://127.0.0.1:8265`."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A job's name, as `curate submit` printed it.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log as it grows, and exit as the job does.")]

DETACHED_CODE = 130
UNREACHABLE_CODE = 75
"""EX_TEMPFAIL of sysexits.h: what became of the job is not known here, and asking again later may tell."""

STOP_SECONDS = 60.0
"""Ray gives a job 3 seconds to end by itself, then kills it; the rest is for a busy head node."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN(?!I)|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY", re.IGNORECASE)


def submit(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a built-in recipe.")],
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="Where the build goes: `s3://bucket/prefix`, or a path that all nodes see."),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="After `--`: options of `curate run`.")
    ] = None,
    address: Address = None,
    name: Annotated[
        str | None,
        typer.Option(help="The job's name (Ray's submission id), used once. Default: made from the recipe's."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log until the job ends, or print its name and return.")
    ] = True,
    code: Annotated[
        bool | None,
        typer.Option(
            "--code/--no-code",
            help="Send this installation's code, to run instead of the nodes' own. Default: only from a checkout "
            "(`pip install -e`). What curate depends on must be on the nodes either way.",
        ),
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(
            help="A small file or folder of the recipe's folder to send along, such as a table of urls. Repeat."
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Set in the job's environment, and readable by all who see the cluster."
        ),
    ] = None,
) -> None:
    """Run a recipe as a job on a Ray cluster, and follow its log.

    What travels: the recipe with its `${NAME}`s as they are, what `--include` names, and the code where `--code` says
    so. Media do not: sources and `--out` are buckets, or paths that all nodes see. The cluster needs `python` on the
    PATH of its head, with what curate depends on; jobs/README.md shows images and cluster files.

    **Secrets** are never sent. Keys of an object store belong on the nodes: their environment, an IAM role, a
    Kubernetes secret. The cluster's own token is taken from RAY_AUTH_TOKEN or ~/.ray/auth_token (RAY_AUTH_MODE=token).

    **Ctrl-C** stops following, not the job. A connection that is lost is made again, and the log goes on where it was.

    **Exit codes**: the job's own; 143 when it was stopped; 130 after Ctrl-C; 75 when the cluster did not answer for ten
    minutes; 2 when the job could not be submitted.

    **Examples**

    ```sh
    curate submit my.yaml --out s3://bucket/builds/mine \\
        --address http://head:8265
    curate submit my.yaml --out /shared/mine --include urls.csv \\
        --env DATA=/shared/media
    curate submit my.yaml --out s3://bucket/mine --name mine-1 --no-wait -- \\
        --quiet
    ```
    """
    from curate.cli import job_entry
    from curate.cli.job_package import is_editable, pack
    from curate.schema.recipe_file import RecipeFile

    file = RecipeFile.load(recipe)
    _check_out(out)
    variables = _environment(env or [])
    job = name if name is not None else f"{file.recipe.name}-{secrets.token_hex(4)}"
    if not _NAME.fullmatch(job):
        raise CurateError(f"--name {job!r} is not a job's name", "letters, digits, and . _ - after the first of them")
    arguments = [file.path.name, "--out", out, "--address", "auto"]
    _check_options(ctx, arguments, more or [])
    say = _say()
    server = _server(address)
    with tempfile.TemporaryDirectory(prefix="curate-submit-") as folder:
        package = pack(file, include or [], is_editable() if code is None else code, Path(folder))
        missing = [v for v in package.variables if v not in variables]
        if missing:
            say(f"note       the nodes' environment must have {', '.join(missing)} (or give --env {missing[0]}=...)")
        runtime_env: dict[str, Any] = {"working_dir": str(package.folder)}
        if package.code:
            runtime_env["py_modules"] = [str(path) for path in package.code]
        if variables:
            runtime_env["env_vars"] = variables
        entrypoint = shlex.join(["python", job_entry.FILE, "run", *arguments, *(more or [])])
        metadata = {"curate_recipe": file.recipe.name, "curate_out": out}
        server.send(entrypoint, job, runtime_env, metadata)
    what = f"{package.recipe} and this curate" if package.code else package.recipe
    say(f"submitted  {job} to {server.address}: {what}, {package.bytes / 1e6:.1f} MB; what it has is not sent again")
    at = f" --address {address}" if address is not None else ""
    say(f"           curate status {job} --follow{at}   (again, from anywhere)")
    say(f"           curate stop {job}{at}")
    if not wait:
        typer.echo(job)
        return
    raise typer.Exit(_follow(server, job, at))


def status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A job. Default: all of the cluster's.")] = None,
    address: Address = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """The jobs of a Ray cluster, or how one of them stands.

    Exits with 0 when the cluster could tell, whatever it told; with `--follow` as the job does (see `curate submit`).

    **Examples**

    ```sh
    curate status --address http://head:8265
    curate status mine-1 --follow
    curate status mine-1 --json
    ```
    """
    if follow and (name is None or as_json):
        raise CurateError("--follow shows the log of one job", "give its name, and leave --json out")
    server = _server(address)
    if follow and name is not None:
        raise typer.Exit(_follow(server, name, f" --address {address}" if address is not None else ""))
    if name is None:
        rows = [_row(job) for job in server.jobs()]
        if as_json:
            typer.echo(json.dumps(rows, indent=1))
        else:
            _table(rows, server.address)
        return
    row = _row(server.info(name))
    if as_json:
        typer.echo(json.dumps(row, indent=1))
        return
    out = console()
    for key, value in row.items():
        if value is not None:
            out.print(f"{key:<10} {value}")


def stop(name: Name, address: Address = None) -> None:
    """Stop a job. What is committed stays: the same recipe, submitted to the same --out, goes on from there.

    **Example**

    ```sh
    curate stop mine-1 --address http://head:8265
    ```
    """
    server = _server(address)
    say = _say()
    if not server.stop(name):
        say(f"{name} had ended before: {server.info(name).status.value.lower()}")
        return
    limit = time.monotonic() + STOP_SECONDS
    while not (job := server.info(name)).status.is_terminal():
        if time.monotonic() > limit:
            raise CurateError(
                f"{name} was told to stop and still runs after {STOP_SECONDS:.0f} seconds",
                "look at the head node's logs",
            )
        time.sleep(0.5)
    say(f"{name} {job.status.value.lower()}")


def _server(address: str | None) -> JobServer:
    from curate.cli.job_address import enable_ray_token_auth, resolve_address

    found = resolve_address(address)
    enable_ray_token_auth()
    from curate.cli.job_server import JobServer  # imports Ray, which reads then whether to send a token

    return JobServer(found)


def _follow(server: JobServer, name: str, at: str) -> int:
    """Show a job's log until it ends; the exit code that stands for how it did."""
    from ray.job_submission import JobStatus

    from curate.cli.job_follow import Follower
    from curate.cli.job_server import Unreachable, exit_code

    say = _say()
    try:
        job = Follower(server, name, _write, say).follow()
    except KeyboardInterrupt:
        say(f"\nno longer following; {name} goes on")
        say(f"           curate status {name} --follow{at}   (to follow it again)")
        say(f"           curate stop {name}{at}")
        return DETACHED_CODE
    except Unreachable as exc:
        say(f"curate: {exc.message}; {name} may go on\n  {exc.hint}")
        return UNREACHABLE_CODE
    ended = JobStatus(job["status"])
    code = exit_code(ended, job.get("driver_exit_code"))
    say(f"{ended.value.lower():<10} {name}" + (f", exit code {code}" if code else ""))
    message = str(job.get("message") or "")
    if ended == JobStatus.FAILED:
        if job.get("driver_exit_code") is None:
            say(f"  it never ran: {message[-2000:]}")
        elif code == 127:
            say("  the head node has no `python` on its PATH: start Ray there in the environment that curate is in")
        elif re.search(r"No module named '?curate", message):
            say("  curate is not installed on the nodes: use an image that has it (jobs/Dockerfile), or --code")
    return code


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say() -> Any:
    """Lines about the job go to stderr, so that stdout is the job's log."""
    return console(errors=True).print


def _check_out(out: str) -> None:
    """The job runs on another machine, in a folder that is thrown away after it.

    Raises:
        CurateError: a relative path; a uri of another kind than s3, or with credentials in it.
    """
    from curate.storage import is_remote, open_store

    if is_remote(out):
        open_store(out)
    elif not Path(out).is_absolute():
        raise CurateError(
            f"--out {out} is relative, and would be lost with the job's own folder on the cluster",
            "give s3://bucket/prefix, or an absolute path on a disk that all nodes share",
        )


def _environment(given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`s for the job, which anyone who sees the dashboard can read.

    Raises:
        CurateError: not NAME=VALUE, or what looks like a secret.
    """
    out = {}
    for name, value in named_values(given, "--env").items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise CurateError(f"--env {name!r} is not NAME=VALUE")
        if _SECRET.search(name) or re.search(r"://[^/@\s]*:[^/@\s]*@", value):
            raise CurateError(
                f"--env {name} looks like a secret, and a job's environment is shown to all who see the cluster",
                "set it on the nodes: in their environment, by an IAM role, or from a Kubernetes secret "
                "(jobs/rayjob.yaml)",
            )
        out[name] = value
    return out


def _check_options(ctx: typer.Context, arguments: Sequence[str], more: Sequence[str]) -> None:
    """What `curate run` would refuse on the cluster is refused here, before anything is sent."""
    for option in ("--out", "-o", "--address"):
        if any(given == option or given.startswith(f"{option}=") for given in more):
            raise CurateError(f"{option} after `--` would say twice what `curate submit` says itself", "leave it out")
    run = ctx.find_root().command.commands["run"]  # type: ignore[attr-defined]
    run.make_context("run", [*arguments, *more], parent=ctx.parent)


def _row(job: Any) -> dict[str, Any]:
    """A job as people and machines read it; times in UTC."""
    from curate.cli.job_server import exit_code

    ended = job.status.is_terminal()
    metadata = job.metadata or {}
    return {
        "name": job.submission_id,
        "state": job.status.value.lower(),
        "exit_code": exit_code(job.status, job.driver_exit_code) if ended else None,
        "recipe": metadata.get("curate_recipe"),
        "out": metadata.get("curate_out"),
        "command": job.entrypoint,
        "started": _time(job.start_time),
        "ended": _time(job.end_time) if ended else None,
        "message": job.message,
    }


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _table(rows: Sequence[dict[str, Any]], address: str) -> None:
    if not rows:
        console().print(f"no jobs at {address}")
        return
    lines = []
    for row in rows:
        what = f"{row['recipe']} to {row['out']}" if row["recipe"] else row["command"]
        code = "" if row["exit_code"] is None else str(row["exit_code"])
        lines.append((row["name"], row["state"], code, row["started"] or "", what))
    print_table(("name", "state", "exit", "started", "what"), lines, whole="started")
