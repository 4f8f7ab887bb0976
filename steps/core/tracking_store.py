"""Whether the tracking store that a URI names can be used, before anything waits for it."""

import os
import socket
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from steps.core.errors import StepError
from steps.core.redaction import redact

CONNECT_SECONDS = 10.0  # in which a server must take a connection
PORTS = {"http": 80, "https": 443}
SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
# what the package of a database driver is called, where it is not called like its module
PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
DATABRICKS = ("databricks", "databricks-uc", "uc")
ALLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"  # MLflow refuses a folder without it


def require(uri: str, *, claimed: bool = False) -> None:
    """Refuse a server that takes no connection, a database that cannot be made or written or whose
    driver is not installed, and what is neither.

    MLflow itself tries again for minutes, or ends in a traceback. A server behind a proxy is not
    tried.

    Args:
        uri: of the tracking store.
        claimed: whether a run is there already that this process is to go on with.

    Raises:
        StepError: with the URI and the cure.
    """
    # Databricks' are written without a scheme as well
    scheme = uri if uri in DATABRICKS else urlsplit(uri).scheme.partition("+")[0]
    if uri.startswith(SQLITE):
        _require_database(uri, claimed)
    elif scheme in DATABASES:
        _require_driver(uri)
    elif scheme in PORTS and not claimed:
        require_server(uri)
    elif uri and scheme not in (*PORTS, *_others()):
        raise StepError(
            f"MLflow at {redact(uri)}: expected the address of a tracking server or a database,"
            f" such as http://127.0.0.1:5000 or {SQLITE}/data/mlflow.db; set MLFLOW_TRACKING_URI"
        )


def _others() -> set[str]:
    """Schemes of stores that are neither a server nor a database, those of plugins among them."""
    named = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    files = {"", "file"} if os.environ.get(ALLOW_FILES, "").lower() in ("true", "1") else set()
    return {*DATABRICKS, "sqlite", *named, *files}


def _require_driver(uri: str) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise StepError(
            f"MLflow at {redact(uri)}: the database driver {error.name} is not installed; run `pip"
            f" install {PACKAGES.get(str(error.name), error.name)}` in this environment"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        raise StepError(
            f"MLflow at {redact(uri)}: expected dialect+driver://user@host:port/database"
            f" ({redact(str(error))}); set MLFLOW_TRACKING_URI"
        ) from error


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
    if path.is_dir():
        raise StepError(f"MLflow at {uri}: {path} is a folder; set {SQLITE}{path}/mlflow.db")
    if not path.parent.is_dir():
        raise StepError(f"MLflow at {uri}: the folder {path.parent} does not exist; make it")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StepError(
            f"MLflow at {uri}: {path} cannot be written by this user; set"
            f" MLFLOW_TRACKING_URI={SQLITE}/<folder>/mlflow.db in a folder of yours"
        )
