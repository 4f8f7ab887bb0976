"""Whether the tracking store that a URI names can be used, before anything waits for it."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from steps.core.errors import StepError
from steps.core.redaction import redact

CONNECT_SECONDS = 10.0  # in which a server must take a connection
PORTS = {"http": 80, "https": 443}
SQLITE = "sqlite:///"


def require(uri: str, *, claimed: bool = False) -> None:
    """Refuse a server that takes no connection, and a database that cannot be made or written.

    MLflow itself tries again for minutes. A server behind a proxy is not tried, nor are other
    stores.

    Args:
        uri: of the tracking store.
        claimed: whether a run is there already that this process is to go on with.

    Raises:
        StepError: with the URI and the cure.
    """
    if uri.startswith(SQLITE):
        _require_database(uri, claimed)
    elif not claimed:
        require_server(uri)


def relative_cure(uri: str) -> str | None:
    """What to write instead of a SQLite URI that means another file in each folder; None for any
    other.
    """
    path = uri.removeprefix(SQLITE).partition("?")[0]
    if not uri.startswith(SQLITE) or path.startswith(("/", ":memory:")) or not path:
        return None
    return (
        f"{uri} is relative to the folder of each process: set"
        f" MLFLOW_TRACKING_URI={SQLITE}/<folder>/{path}, with the whole path"
    )


def require_server(uri: str) -> None:
    """Refuse a server that takes no connection; any other store is let pass.

    Raises:
        StepError: with the URI and the cure.
    """
    if not uri.startswith(tuple(f"{scheme}://" for scheme in PORTS)):
        return
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return
    try:
        port = parts.port or PORTS[parts.scheme]
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # a port that is not a number is a ValueError
        raise StepError(
            f"MLflow at {redact(uri)} does not answer ({error}); start the tracking server, or set"
            " MLFLOW_TRACKING_URI to where it is"
        ) from error


def _require_database(uri: str, claimed: bool) -> None:
    path = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if str(path) in (".", ":memory:"):
        return
    if claimed and not path.exists() and (cure := relative_cure(uri)):
        raise StepError(f"MLflow at {uri}: the database does not exist in {Path.cwd()}; {cure}")
    if not path.parent.is_dir():
        raise StepError(f"MLflow at {uri}: the folder {path.parent} does not exist; make it")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StepError(
            f"MLflow at {uri}: {path} cannot be written by this user; set"
            f" MLFLOW_TRACKING_URI={SQLITE}/<folder>/mlflow.db in a folder of yours"
        )
