"""An export as a data set of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from curate.exports.base import MARK
from curate.schema.errors import CurateError


def push(folder: Path, repo: str) -> str:
    """Upload an export; one that was broken off goes on: what the Hub has is not sent again.

    Args:
        folder: with an export, on this machine.
        repo: `NAME/DATASET`; a repository that is not there is made, private.

    Returns:
        The page of the data set.

    Raises:
        CurateError: the Hub refuses, or does not answer.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi(library_name="curate")
    try:
        made = hub.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="dataset",
            ignore_patterns=[MARK],
            commit_message="Upload by curate export",
        )
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError) as error:
        said = str(error).strip().partition("\n")[0]
        raise CurateError(
            f"{repo}: {said}", "log in (hf auth login, or HF_TOKEN), and run the same command again"
        ) from error
    return str(made)
