"""All calls to the tracking server: retried within a limit, with errors in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from steps.core import bounded_read, search, tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.registry import retries
from steps.registry.model_version import Version, version_of

T = TypeVar("T")

# characters; the SQL store's column is String(5000), and PostgreSQL refuses more
DESCRIPTION_LIMIT = 5000


class PermissionRefusedError(StepError):
    """The user may not do this on the tracking server."""


class ServerUnavailableError(StepError):
    """The tracking server did not answer within the limit."""


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
        moves: whether aliases are moved with it, of which errors say how a move goes on.
    """

    def __init__(
        self,
        retry_seconds: float = 60.0,
        client: MlflowClient | None = None,
        *,
        moves: bool = True,
    ) -> None:
        self.client = client or mlflow.MlflowClient()
        self.retry_seconds, self.moves = retry_seconds, moves

    # --- reads

    def aliases(self, name: str) -> dict[str, int] | None:
        """Alias to version number of a registered model; None where there is no such model."""
        what = f"reading the aliases of {name!r}"
        model = self._read(what, lambda: self.client.get_registered_model(name))
        if model is None:
            return None
        try:
            return {alias: int(version) for alias, version in model.aliases.items()}
        except ValueError as error:
            raise StepError(f"{what}: the server's answer is not a registry's ({error})") from error

    def created_ms(self, name: str) -> int | None:
        """Creation time of a registered model, ms since 1970; None where there is no such model."""
        model = self._read(f"reading {name!r}", lambda: self.client.get_registered_model(name))
        return None if model is None else int(model.creation_timestamp)

    def versions(self, name: str) -> list[Version]:
        """All versions of a registered model by number; empty where there is no such model."""

        def call() -> list[Version]:
            words = search.equals("name", name)
            entities = search.every_page(
                lambda token: self.client.search_model_versions(
                    words, max_results=10_000, page_token=token
                )
            )
            return sorted(map(version_of, entities), key=lambda version: version.number)

        return self._read(f"reading the versions of {name!r}", call) or []

    def versions_of_logged(self, model_id: str) -> list[Version]:
        """The versions of registered models that say they are of this logged model."""

        def call() -> list[Version]:
            words = search.equals(f"tags.`{tags.MODEL_ID}`", model_id)
            return [version_of(one) for one in self.client.search_model_versions(words)]

        return self._read(f"reading the versions of {model_id!r}", call) or []

    def version(self, name: str, number: int) -> Version | None:
        return self._read(
            f"reading {name!r} version {number}",
            lambda: version_of(self.client.get_model_version(name, str(number))),
        )

    def logged_model(self, model_id: str | None) -> LoggedModel | None:
        """A logged model; None where there is none, or no id."""
        if model_id is None:
            return None
        what = f"reading the logged model {model_id!r}"
        return self._read(what, lambda: self.client.get_logged_model(model_id))

    def tags_of_logged(self, version: Version) -> dict[str, str]:
        """Tags of the logged model behind a version; empty where there is none."""
        logged = self.logged_model(version.model_id)
        return dict(logged.tags) if logged else {}

    def tags_of_maker(self, logged: LoggedModel | None) -> dict[str, str]:
        """Tags of the run that logged a model; empty where there is none."""
        if logged is None or not logged.source_run_id:
            return {}
        run_id = logged.source_run_id
        run = self._read(f"reading the run {run_id!r}", lambda: self.client.get_run(run_id))
        return dict(run.data.tags) if run else {}

    def text(self, run: Run, path: str, most_bytes: int) -> str:
        """The text of a run's own file; its address must be one that is followed.

        Raises:
            OSError, UnicodeDecodeError: it is missing or is no text.
            TooMuchError: it is larger than this, or comes too slowly.
        """

        def call() -> str:
            try:
                address = f"{str(run.info.artifact_uri).rstrip('/')}/{path}"
                return bounded_read.read(address, most_bytes).decode()
            except MlflowException as error:
                if retries.is_missing_artifact(error):
                    raise FileNotFoundError(retries.first_line(error)) from error
                raise

        return self._write(f"reading runs:/{run.info.run_id}/{path}", call)

    # --- writes that may be repeated

    def repeated(self, what: str, call: Callable[[], T]) -> T:
        """Make another call in the same way: one that does the same when it is made twice."""
        return self._write(what, call)

    def ensure_model(self, name: str, description: str, tags: Mapping[str, str]) -> bool:
        """Create a registered model unless it is there. Returns whether it was created here."""

        def call() -> bool:
            try:
                self.client.create_registered_model(name, tags=dict(tags), description=description)
            except MlflowException as error:
                if error.error_code in retries.EXISTS:
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

    def delete_model_tag(self, name: str, key: str) -> None:
        self._write(
            f"deleting tag {key} of {name!r}",
            lambda: self.client.delete_registered_model_tag(name, key),
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
            try:
                self.client.delete_model_version(name, str(number))
            except MlflowException as error:
                if error.error_code not in retries.MISSING:
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
                for version in self.versions(name):
                    if landed(version):
                        return version
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
        try:
            return self._call(what, call, "READ permission on it")
        except MlflowException as error:
            if error.error_code in retries.MISSING:
                return None
            raise

    def _write(self, what: str, call: Callable[[], T]) -> T:
        return self._call(what, call, "EDIT permission on the registered model and its history")

    def _call(self, what: str, call: Callable[[], T], permission: str) -> T:
        retrying = Retrying(
            retry=retry_if_exception(retries.is_outage),
            stop=stop_after_delay(self.retry_seconds),
            wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.2),
            reraise=True,
        )
        try:
            with retries.without_own_retries():
                result: T = retrying(self.attempt, what, call)
                return result
        except Exception as error:
            if isinstance(error, MlflowException) and (
                error.error_code in retries.REFUSED or retries.status_of(error) in (401, 403)
            ):
                raise PermissionRefusedError(
                    f"{what}: the tracking server refuses it ({retries.first_line(error)});"
                    f" {retries.cure_of_refusal(error, permission)}"
                ) from error
            if retries.is_outage(error):
                afterwards = retries.AFTERWARDS if self.moves else ""
                raise ServerUnavailableError(
                    f"{what}: no answer from the tracking server for {self.retry_seconds:g} s"
                    f" ({redact(retries.first_line(error))}){afterwards}"
                ) from error
            raise

    def attempt(self, what: str, call: Callable[[], T]) -> T:  # noqa: ARG002  (a test double counts by it)
        """One attempt; a test double breaks here, between two calls."""
        return call()
