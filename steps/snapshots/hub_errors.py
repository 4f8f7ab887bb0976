"""What the Hub's client raises, as one clear error with a cure."""

import contextlib
from collections.abc import Iterator

import httpx2
from huggingface_hub import errors

from steps.snapshots.errors import HubUnreachableError, SnapshotError
from steps.snapshots.repository import Repository

KEPT = "files that arrived whole are kept: run the same command again to go on"


@contextlib.contextmanager
def explained(repository: Repository) -> Iterator[None]:
    """Turn the client's errors about a repository into `SnapshotError`.

    Raises:
        HubUnreachableError: no answer came.
        SnapshotError: the Hub answered no, or the disk said so.
    """
    field, repo = f"{repository.field}.repo", repository.repo
    try:
        yield
    except errors.GatedRepoError as error:
        raise SnapshotError(
            field,
            repo,
            f"is gated: the hub answered {_status(error)}",
            "accept its terms on the hub, then set HF_TOKEN to a token that may read it",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise SnapshotError(
            field,
            repo,
            f"is unknown to the hub, or private (it answered {_status(error)})",
            "check the spelling; for a private one set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SnapshotError(
            f"{repository.field}.revision",
            repository.requested,
            f"{repo} has no such revision",
            "name a commit, branch or tag that the hub shows",
        ) from error
    except errors.HFValidationError as error:
        raise SnapshotError(
            field, repo, "is not a repository name", "write it as owner/name"
        ) from error
    except errors.HfHubHTTPError as error:
        status = _status(error)
        if status in (401, 403):
            raise SnapshotError(
                field,
                repo,
                f"the hub answered {status}",
                "set HF_TOKEN to a token that may read it",
            ) from error
        if status is not None and status < 500 and status != 429:
            raise SnapshotError(
                field, repo, f"the hub answered {status}", "check HF_ENDPOINT and the repository"
            ) from error
        raise HubUnreachableError(
            field, repo, f"the hub is failing (it answered {status})", KEPT
        ) from error
    except (
        httpx2.HTTPError,
        errors.OfflineModeIsEnabled,
        errors.LocalEntryNotFoundError,
        errors.FileMetadataError,
    ) as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled) or isinstance(
            error.__cause__, errors.OfflineModeIsEnabled
        )
        problem = (
            "HF_HUB_OFFLINE forbids asking the hub"
            if offline
            else f"the hub cannot be reached ({_root(error)})"
        )
        raise HubUnreachableError(
            field, repo, problem, f"check the network, HF_ENDPOINT and the proxy; {KEPT}"
        ) from error
    except OSError as error:
        # the client raises a bare OSError for a file whose length is wrong, the system one for a
        # full disk
        raise SnapshotError(
            field, repo, f"the download failed: {str(error).splitlines()[0]}", KEPT
        ) from error


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}"
