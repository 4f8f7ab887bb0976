"""Who acts: the user that the tracking server authenticated, or a name that is only claimed."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mlflow
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request
from requests import Response

from steps.registry.client import RegistryClient

# MLflow's basic auth since 3.x: the user of this very request
CURRENT = "/api/2.0/mlflow/users/current"
# before that: one user, shown to that user and to administrators alone
ONE = "/api/2.0/mlflow/users/get?username="
# what the user of this very request may do, and all users, where the server shows them
PERMISSIONS = "/api/3.0/mlflow/users/current/permissions"
USERS = "/api/2.0/mlflow/users/list"
CLAIMED = "(claimed)"  # behind a name that no server confirmed


@dataclass(frozen=True)
class Actor:
    """Who makes a change."""

    name: str
    # the tracking server said so; False: the name is what this process says of itself
    authenticated: bool

    @property
    def shown(self) -> str:
        """The name as people read it."""
        return self.name if self.authenticated else f"{self.name} {CLAIMED}"


def who(registry: RegistryClient) -> Actor:
    """Who this process is to the registry's server.

    A server with MLflow's basic auth is asked, with the credentials that every other request
    carries: those in the address, in the environment or in ``~/.mlflow/credentials``. Where there
    is no server, or one that cannot say, the name is claimed: the user name of those credentials,
    else ``MLFLOW_USER``, else the user of this machine.

    Raises:
        ServerUnavailableError: the server does not answer.
    """
    address = mlflow.get_registry_uri()
    named, password = _credentials(address)
    if urlsplit(address).scheme in ("http", "https"):
        confirmed = registry.repeated(
            "asking the tracking server who we are",
            lambda: _ask(address, named if password else None),
        )
        if confirmed is not None:
            return Actor(confirmed, authenticated=True)
    return Actor(named or os.environ.get("MLFLOW_USER") or _local_user(), authenticated=False)


def manages(registry: RegistryClient, model: str) -> bool:
    """Whether the user of this process is the manager of a registered model, as who creates one is,
    by MLflow's basic auth; False for administrators, and where the server cannot say.
    """
    said = _told(registry, PERMISSIONS)
    if said.get("is_admin") is not False:
        return False
    return any(
        (grant.get("resource_type"), grant.get("resource_pattern"), grant.get("permission"))
        == ("registered_model", model, "MANAGE")
        for grant in said.get("permissions") or ()
    )


def unknown(registry: RegistryClient, names: Collection[str]) -> list[str]:
    """Which of these users the tracking server does not know; none where it cannot say."""
    listed = _told(registry, USERS).get("users")
    known = {user.get("username") for user in listed or ()}
    return [name for name in names if known and name not in known]


def _told(registry: RegistryClient, endpoint: str) -> dict[str, Any]:
    """What a server with MLflow's basic auth answers; empty where there is none, or it refuses."""
    address = mlflow.get_registry_uri()
    if urlsplit(address).scheme not in ("http", "https"):
        return {}
    answer = registry.repeated(
        "asking the tracking server about its users", lambda: _get(address, endpoint)
    )
    try:
        body = answer.json() if answer.ok else {}
    except ValueError:  # a server without users may answer any path with its start page
        return {}
    return body if isinstance(body, dict) else {}


def _ask(address: str, named: str | None) -> str | None:
    """The authenticated user's name; None where the server does not know users, or knows them in
    another way.

    Args:
        address: of the server.
        named: user name of the request's basic credentials; None where it carries others, as an
            administrator is shown any user.
    """
    answer = _user(_get(address, CURRENT))
    # a plugin's credentials would take the place of the basic ones
    others = get_default_host_creds(address)
    if answer is None and named is not None and not (others.auth or others.aws_sigv4):
        answer = _user(_get(address, ONE + quote(named, safe="")))
    return answer


def _get(address: str, endpoint: str) -> Response:
    response: Response = http_request(get_default_host_creds(address), endpoint, "GET")
    return response


def _user(response: Response) -> str | None:
    if not response.ok:
        return None
    try:
        body: Any = response.json()
        name = body["user"]["username"]
    except (ValueError, KeyError, TypeError):
        # a server without users may answer any path with its start page
        return None
    return name if isinstance(name, str) and name else None


def _credentials(address: str) -> tuple[str | None, str | None]:
    """User name and password that requests carry: of the address, else environment, else file."""
    parts = urlsplit(address)
    if parts.username:
        return unquote(parts.username), unquote(parts.password or "") or None
    stored = read_mlflow_creds()
    return stored.username or None, stored.password or None


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
