"""The job server of a Ray cluster (the dashboard's port): its address, its token, and its errors as sentences."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from curate.schema.errors import CurateError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""How long the server may take for one answer; accepting a job includes waiting for its agent."""

LOST = (502, 503, 504)
"""What a proxy before the cluster answers while the cluster is away."""

STOPPED_CODE = 128 + 15
"""The exit code that stands for a job that was stopped: Ray sends it SIGTERM, then SIGKILL."""

NONCE = "curate_submission"
"""Metadata that tells a job of this command from another of the same name."""


class Unreachable(CurateError):
    """The job server does not answer now; it may later."""


def unreachable(address: str, reason: object) -> Unreachable:
    """Nobody answers at an address."""
    why = " ".join(str(reason).split())
    return Unreachable(
        f"no Ray job server answers at {address}",
        "is it the dashboard's address (port 8265, not 6379), is the cluster up, and is its port forwarded to this "
        f"machine? ({why[:200]})",
    )


def refused_token(address: str, missing: bool) -> CurateError:
    """The cluster wants its token, and had none (`missing`) or a wrong one."""
    return CurateError(
        f"the cluster at {address} wants its token, and {'none was sent' if missing else 'refuses the one it got'}",
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the head node, or write "
        "that into ~/.ray/auth_token",
    )


class JobServer(JobSubmissionClient):
    """Ray's own client, with a time limit on every request and user errors as sentences.

    Args:
        address: of `resolve_address`.

    Raises:
        Unreachable: nobody answers.
        CurateError: the token is missing or wrong, or it is not a Ray job server.
    """

    def __init__(self, address: str) -> None:
        # the SDK lets the environment win over its argument
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        for chatty in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self.address = address
        try:
            super().__init__(address)
        except AuthenticationError as exc:  # a token file that is named and not there
            raise refused_token(address, missing=True) from exc
        except (RuntimeError, requests.RequestException, ValueError, KeyError) as exc:
            raise CurateError(
                f"what answers at {address} is not a Ray job server",
                "give the address of the head's dashboard, such as http://HEAD:8265",
            ) from exc

    def _do_request(
        self,
        method: str,
        endpoint: str,
        *,
        data: bytes | None = None,
        json_data: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> requests.Response:
        limits = {"timeout": (CONNECT_SECONDS, ANSWER_SECONDS)}
        try:
            response: requests.Response = super()._do_request(
                method, endpoint, data=data, json_data=json_data, **limits, **kwargs
            )
        except AuthenticationError as exc:
            raise refused_token(self.address, missing="required" in str(exc.message).split(":")[0]) from exc
        except requests.RequestException as exc:
            raise unreachable(self.address, type(exc).__name__) from exc
        if response.status_code in LOST:
            raise unreachable(self.address, f"HTTP {response.status_code}")
        return response

    def connection(self) -> dict[str, Any]:
        """What a websocket to this server needs: headers (with the token) and cookies."""
        return {"headers": self._headers, "cookies": self._cookies}

    def send(self, entrypoint: str, name: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> None:
        """Upload what `runtime_env` names, and start a job.

        Raises:
            CurateError: a job of that name is there; the cluster refuses it.
        """
        nonce = secrets.token_hex(8)
        try:
            self.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env=runtime_env,
                metadata={**metadata, NONCE: nonce},
            )
        except Unreachable:
            # only the answer may be lost
            if not self._has(name, nonce):
                raise
        except (RuntimeError, ValueError) as exc:
            if "already exists" in str(exc):
                raise CurateError(
                    f"this cluster has a job {name!r} already, and a name is used once",
                    f"look at it with `curate status {name}`, or give this one another --name",
                ) from exc
            raise CurateError(f"the cluster at {self.address} refuses the job: {_last_line(str(exc))}") from exc

    def _has(self, name: str, nonce: str) -> bool:
        try:
            return (self.info(name).metadata or {}).get(NONCE) == nonce
        except CurateError:
            return False

    def info(self, name: str) -> JobDetails:
        """All that the cluster knows of a job.

        Raises:
            CurateError: no such job.
        """
        try:
            return self.get_job_info(name)
        except RuntimeError as exc:
            raise self._no_job(name, exc) from exc

    def jobs(self) -> list[JobDetails]:
        """The jobs that were submitted (not drivers that connected by themselves), oldest first."""
        submitted = [job for job in self.list_jobs() if job.type == JobType.SUBMISSION]
        return sorted(submitted, key=lambda job: (job.start_time or 0, job.submission_id or ""))

    def stop(self, name: str) -> bool:
        """Ask for a job to be stopped; False where it had ended.

        Raises:
            CurateError: no such job.
        """
        try:
            return bool(self.stop_job(name))
        except RuntimeError as exc:
            raise self._no_job(name, exc) from exc

    def _no_job(self, name: str, exc: RuntimeError) -> CurateError:
        if "status code 404" in str(exc):
            return no_job(self.address, name)
        return CurateError(f"the cluster at {self.address} cannot say: {_last_line(str(exc))}")


def no_job(address: str, name: str) -> CurateError:
    """The cluster knows no job of that name."""
    return CurateError(f"the cluster at {address} has no job {name!r}", "`curate status` lists those it has")


def exit_code(status: JobStatus, driver: int | None) -> int:
    """The exit code that stands for a job that has ended.

    Args:
        status: SUCCEEDED, FAILED or STOPPED.
        driver: the driver's own code, negative for a signal; None where it never ran.

    Returns:
        The driver's; 128 + N where signal N killed it; 143 where the job was stopped; 1 where it never ran.
    """
    if status == JobStatus.STOPPED:
        return STOPPED_CODE
    if driver is None:
        return 0 if status == JobStatus.SUCCEEDED else 1
    return driver if driver >= 0 else 128 - driver


def _last_line(text: str) -> str:
    """Ray answers with a traceback; its last line says what is wrong."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip(" .\n")]
    return lines[-1][:500] if lines else "without saying why"
