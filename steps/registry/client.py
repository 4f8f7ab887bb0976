"""The only door to the tracking server: every call of this room, retried within a limit, with
errors in plain words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from steps.core import search
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.registry.aliases import MODEL_ID_TAG
from steps.registry.retries import (
    first_line,
    is_missing_artifact,
    is_outage,
    status_of,
    without_own_retries,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

T = TypeVar("T")

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
EXISTS = frozenset({"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})
REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
# characters; the SQL store's column is String(5000), and PostgreSQL refuses more
DESCRIPTION_LIMIT = 5000


class PermissionRefusedError(StepError):
    """The user may not do this on the tracking server."""


class ServerUnavailableError(StepError):
    """The tracking server did not answer within the limit."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    source: str
    run_id: str | None
    description: str
    created_ms: int  # milliseconds since 1970, by the server's clock
    status: str = "READY"  # or PENDING_REGISTRATION, FAILED_REGISTRATION
    status_message: str = ""

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"

    @property
    def model_id(self) -> str | None:
        """Id of the logged model it points at; SQL stores keep it in the source only."""
        if tagged := self.tags.get(MODEL_ID_TAG):
            return tagged
        rest = self.source.removeprefix("models:/")
        return rest if rest != self.source and rest.startswith("m-") and "/" not in rest else None


class RegistryClient:
    """Calls to the tracking server and its registry.

    Reads and writes that may be repeated are retried with exponential back-off until
    ``retry_seconds`` have passed. MLflow's own HTTP client would repeat any request, also one that
    creates something and whose answer was lost; its retries are off during a call, and the two
    calls that create are repeated only by callers that look first whether the earlier attempt
    arrived.

    Args:
        retry_seconds: how long to go on while the server does not answer.
        client: an ``MlflowClient``; the default follows the tracking and registry URIs of the
            process.
    """

    def __init__(self, retry_seconds: float = 60.0, client: MlflowClient | None = None) -> None:
        import mlflow

        self.client = client or mlflow.MlflowClient()
        self.retry_seconds = retry_seconds

    # --- reads

    def aliases(self, name: str) -> dict[str, int] | None:
        """Alias to version number of a registered model; None where there is no such model."""
        found = self._read(
            f"reading the aliases of {name!r}", lambda: self.client.get_registered_model(name)
        )
        return (
            None
            if found is None
            else {alias: int(version) for alias, version in found.aliases.items()}
        )

    def created_ms(self, name: str) -> int | None:
        """When a registered model was made, ms since 1970 by the server's clock; None where there
        is no such model.
        """
        found = self._read(f"reading {name!r}", lambda: self.client.get_registered_model(name))
        return None if found is None else int(found.creation_timestamp)

    def model_names(self) -> list[str]:
        """All registered models but the journals."""

        def call() -> list[str]:
            names: list[str] = []
            token: str | None = None
            while True:
                page = self.client.search_registered_models(max_results=1000, page_token=token)
                names += [each.name for each in page if "slm.kind" not in each.tags]
                token = page.token
                if not token:
                    return names

        return self._write("listing the registered models", call)

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model in the order of their numbers; empty where there is no
        such model.
        """

        def call() -> list[Version]:
            found: list[Version] = []
            token: str | None = None
            while True:
                page = self.client.search_model_versions(
                    search.equals("name", name), max_results=10_000, page_token=token
                )
                found += [version_of(each) for each in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda each: each.number)

        return self._read(f"reading the versions of {name!r}", call) or []

    def version(self, name: str, number: int) -> Version | None:
        return self._read(
            f"reading {name!r} version {number}",
            lambda: version_of(self.client.get_model_version(name, str(number))),
        )

    def logged_model(self, model_id: str) -> LoggedModel | None:
        return self._read(
            f"reading the logged model {model_id!r}", lambda: self.client.get_logged_model(model_id)
        )

    def run_tags(self, run_id: str) -> dict[str, str] | None:
        """Tags of a run; None where there is no such run."""
        found = self._read(f"reading the run {run_id!r}", lambda: self.client.get_run(run_id))
        return None if found is None else dict(found.data.tags)

    def text(self, uri: str) -> str:
        """The text of a small artifact."""
        import mlflow
        from mlflow.exceptions import MlflowException

        def call() -> str:
            try:
                return str(mlflow.artifacts.load_text(uri))
            except MlflowException as error:
                if is_missing_artifact(error):
                    raise FileNotFoundError(first_line(error)) from error
                raise

        return self._write(f"reading {redact(uri)}", call)

    # --- writes that may be repeated

    def repeated(self, what: str, call: Callable[[], T]) -> T:
        """Make another call in the same way: one that does the same when it is made twice."""
        return self._write(what, call)

    def ensure_model(self, name: str, description: str, tags: Mapping[str, str]) -> bool:
        """Create a registered model unless it is there. Returns whether it was created here."""

        def call() -> bool:
            from mlflow.exceptions import MlflowException

            try:
                self.client.create_registered_model(name, tags=dict(tags), description=description)
            except MlflowException as error:
                if error.error_code in EXISTS:
                    return False
                raise
            return True

        return self._write(f"creating the registered model {name!r}", call)

    def set_version_tag(self, name: str, number: int, key: str, value: str) -> None:
        self._write(
            f"tagging {name!r} version {number}",
            lambda: self.client.set_model_version_tag(name, str(number), key, value),
        )

    def describe(self, name: str, number: int, description: str) -> None:
        text = description[:DESCRIPTION_LIMIT]
        self._write(
            f"describing {name!r} version {number}",
            lambda: self.client.update_model_version(name, str(number), description=text),
        )

    def set_alias(self, name: str, alias: str, number: int) -> None:
        self._write(
            f"setting {name!r}@{alias} to version {number}",
            lambda: self.client.set_registered_model_alias(name, alias, str(number)),
        )

    def delete_alias(self, name: str, alias: str) -> None:
        self._write(
            f"deleting {name!r}@{alias}",
            lambda: self.client.delete_registered_model_alias(name, alias),
        )

    def delete_version(self, name: str, number: int) -> None:
        def call() -> None:
            from mlflow.exceptions import MlflowException

            try:
                self.client.delete_model_version(name, str(number))
            except MlflowException as error:
                if error.error_code not in MISSING:
                    raise

        self._write(f"deleting {name!r} version {number}", call)

    # --- the write that must not be repeated blindly

    def create_version(
        self,
        name: str,
        source: str,
        tags: Mapping[str, str],
        description: str,
        landed: Callable[[Version], bool],
        model_id: str | None = None,
    ) -> Version:
        """Create a version; the database hands out the number, each once.

        Args:
            name: registered model.
            source: URI the version points at; nothing is copied.
            tags: written together with the version.
            description: at most 5000 characters.
            landed: tells the version that this call makes from all others. Asked before each
                repetition, so that an attempt whose answer was lost is found and not made again.
            model_id: logged model that the version stands for.
        """
        attempts = 0

        def call() -> Version:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                for each in self.versions(name):
                    if landed(each):
                        return each
            made = self.client.create_model_version(
                name,
                source,
                tags=dict(tags),
                description=description[:DESCRIPTION_LIMIT],
                await_creation_for=0,
                model_id=model_id,
            )
            return version_of(made)

        return self._write(f"creating a version of {name!r}", call)

    # --- how a call is made

    def _read(self, what: str, call: Callable[[], T]) -> T | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._write(what, call)
        except MlflowException as error:
            if error.error_code in MISSING:
                return None
            raise

    def _write(self, what: str, call: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

        retrying = Retrying(
            retry=retry_if_exception(is_outage),
            stop=stop_after_delay(self.retry_seconds),
            wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.2),
            reraise=True,
        )
        try:
            with without_own_retries():
                result: T = retrying(self._once, what, call)
                return result
        except Exception as error:
            if isinstance(error, MlflowException) and (
                error.error_code in REFUSED or status_of(error) in (401, 403)
            ):
                raise PermissionRefusedError(
                    f"{what}: the tracking server refuses it ({first_line(error)}); ask its"
                    " administrator for EDIT permission on the registered model and its history,"
                    " or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                ) from error
            if is_outage(error):
                raise ServerUnavailableError(
                    f"{what}: no answer from the tracking server for {self.retry_seconds:g} s"
                    f" ({redact(first_line(error))}); if a move had begun, the next run finishes"
                    " it: run the same command again when the server is back"
                ) from error
            raise

    def _once(self, what: str, call: Callable[[], T]) -> T:  # noqa: ARG002  (tests stop the process here, between two calls)
        return call()


def version_of(entity: Any) -> Version:
    """A version as this room knows it, of MLflow's entity."""
    return Version(
        name=entity.name,
        number=int(entity.version),
        tags=dict(entity.tags),
        aliases=tuple(sorted(entity.aliases)),
        source=entity.source or "",
        run_id=entity.run_id or None,
        description=entity.description or "",
        created_ms=int(entity.creation_timestamp),
        status=str(entity.status or "READY"),
        status_message=entity.status_message or "",
    )


def as_json(value: object) -> str:
    """Canonical JSON, as tags hold it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
