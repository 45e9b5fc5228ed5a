"""Whether files of a repository of the Hugging Face hub can be had, before anything needs them; none is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from curate.schema.errors import CurateError, first_line

ANSWER_SECONDS = 5.0
"""How long the hub may take to say what a repository holds."""


def check_hub(repository: str, patterns: Sequence[str]) -> str | None:
    """None where this machine's cache holds the files; where they will be fetched, a sentence that says so.

    Args:
        repository: `owner/name`.
        patterns: globs of file names; one file that any of them matches is enough.

    Raises:
        CurateError: they are not in the cache, and the hub cannot be reached, or has no such files.
    """
    if _in_cache(repository, patterns):
        return None
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    hint = "fetch it where there is a network and give its folder, or fill the cache beforehand (HF_HOME)"
    if constants.HF_HUB_OFFLINE:
        raise CurateError(f"{repository} is not in the hub's cache on this machine, and HF_HUB_OFFLINE is set", hint)
    try:
        held = HfApi().model_info(repository, timeout=ANSWER_SECONDS).siblings or []
    except RepositoryNotFoundError as error:  # one behind a gate is a kind of it
        raise CurateError(
            f"the Hugging Face hub shows no model {repository} to this machine",
            "check the name; of a private or gated one, log in (HF_TOKEN)",
        ) from error
    except HFValidationError as error:
        raise CurateError(f"{repository} is no hub id: {first_line(error)}", "write owner/name") from error
    except Exception as error:  # of whichever client of HTTP the library was made with
        raise CurateError(
            f"{repository} is not in the hub's cache on this machine, and the hub cannot be reached: "
            f"{first_line(error)}",
            hint,
        ) from error
    if not any(_matches(one.rfilename, patterns) for one in held):
        raise CurateError(f"the hub's {repository} has none of {', '.join(patterns)}", "is it the right one?")
    return f"{repository} will be fetched from the Hugging Face hub"


def _in_cache(repository: str, patterns: Sequence[str]) -> bool:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return False
    return any(_matches(path.name, patterns) for path in folder.rglob("*"))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.rpartition("/")[2], pattern) for pattern in patterns)
