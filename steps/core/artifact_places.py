"""Where artifacts that another user may have placed must lie, so that they are read at all.

Every user may make an experiment, a logged model and a version, and chooses the address of its
files: of another server, which would be sent this user's credentials, or of a store whose client
this machine does not have. So only addresses beside those of the server's own experiments and of
those that the policy names are followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from steps.core.errors import StepError
from steps.core.model_uri import MOST_COPIES, parse
from steps.core.redaction import redact

DEFAULT_EXPERIMENT = "0"
PROXIED = "mlflow-artifacts"  # scheme of what the tracking server itself hands out
LOCAL = "file"


@dataclass(frozen=True)
class Places:
    """Folders, as scheme, host and path, below which artifacts are read."""

    roots: frozenset[tuple[str, str, str]] = frozenset()

    @staticmethod
    def around(locations: Iterable[str], tracking_uri: str) -> Places:
        """The folders in which experiments of the server and of the policy lie.

        Args:
            locations: artifact locations of those experiments.
            tracking_uri: of the server; over http it hands out artifacts itself.
        """
        served = urlsplit(tracking_uri).scheme in ("http", "https")
        roots = {(PROXIED, "", "/")} if served else set()
        for scheme, host, path in filter(None, map(_parts, locations)):
            parent = str(PurePosixPath(path).parent)
            if scheme != PROXIED:
                roots.add((scheme, host, path if scheme == LOCAL and parent == "/" else parent))
        return Places(frozenset(roots))

    def holds(self, uri: str) -> bool:
        """Whether an address lies below one of these folders; a local one also once its links are
        followed.
        """
        parts = _parts(uri)
        if parts is None:
            return False
        scheme, host, path = parts
        roots = [root for kind, place, root in self.roots if (kind, place) == (scheme, host)]
        if not any(PurePosixPath(path).is_relative_to(root) for root in roots):
            return False
        real = Path(path).resolve() if scheme == LOCAL else None
        return real is None or any(real.is_relative_to(Path(root).resolve()) for root in roots)

    def check(self, uri: str, client: MlflowClient) -> str:
        """The address of the files behind a URI of a run's artifacts or of a model.

        Raises:
            StepError: it lies elsewhere.
            mlflow.exceptions.MlflowException: there is no such run or model.
        """
        address = address_of(uri, client)
        if not self.holds(address):
            raise StepError(f"{redact(uri)}: {self.words(address)}")
        return address

    def words(self, address: str) -> str:
        """Why an address is not followed, and what would make that so."""
        shown = sorted(f"{scheme}://{host}{path}" for scheme, host, path in self.roots)
        return (
            f"its files lie at {redact(address)}, which is not followed, since whoever made it"
            f" chose that address; followed are {', '.join(map(redact, shown)) or 'no addresses'}:"
            " log it there, or name its experiment in promotion.evidence.experiments"
        )


NOWHERE = Places()


def address_of(uri: str, client: MlflowClient) -> str:
    """Where the files behind ``runs:/<run>/<path>`` or ``models:/…`` lie; any other URI is one.

    Raises:
        mlflow.exceptions.MlflowException: there is no such run or model.
    """
    at = uri
    for _ in range(MOST_COPIES):
        if at.startswith("runs:/"):
            run_id, _, path = at.removeprefix("runs:/").partition("/")
            at = f"{str(client.get_run(run_id).info.artifact_uri).rstrip('/')}/{path}"
            continue
        model = parse(at)
        if model is None:
            return at
        if model.model_id:
            at = str(client.get_logged_model(model.model_id).artifact_location)
        elif model.alias:
            version = client.get_model_version_by_alias(str(model.name), model.alias)
            at = client.get_model_version_download_uri(str(model.name), version.version)
        elif (model.version or "").isdigit():
            at = client.get_model_version_download_uri(str(model.name), str(model.version))
        else:
            return at
    raise MlflowException(f"{uri} leads from one model to the next and to no files")


def is_local(address: str) -> bool:
    """Whether an address is of a file or a folder of this machine."""
    parts = _parts(address)
    return parts is not None and parts[0] == LOCAL


def _parts(uri: str) -> tuple[str, str, str] | None:
    """Scheme, host and absolute path of an address; None where it holds more, or leads upwards."""
    try:
        split = urlsplit(uri)
    except ValueError:
        return None
    path = PurePosixPath("/", unquote(split.path))
    if split.query or split.fragment or ".." in path.parts or "\\" in uri or not uri.isprintable():
        return None
    return split.scheme.lower() or LOCAL, split.netloc, str(path)
