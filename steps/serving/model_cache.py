"""Bytes of served versions on this machine: fetched once, verified, and known without a registry.

<cache>/models/<digest>/        the files of a logged model
<cache>/last/<name>-<hash>.json what was served last under an alias of a registry
<cache>/locks/<digest>.lock     held by the server that fetches, of several on one machine
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from steps.core import digest, tags
from steps.core.files import remove_tree
from steps.core.redaction import redact
from steps.serving.served_version import ServedVersion
from steps.serving.worker_process import LoadFailedError

log = logging.getLogger(__name__)

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LOCK_SECONDS = 3600.0  # that a server waits for another one that fetches the same bytes
KEPT_SECONDS = 86_400.0  # that bytes stay which no alias serves any more, for a rollback


class ModelCache:
    """A folder that several servers of a user may share.

    Args:
        root: made when absent.
        registry: URI of the registry whose versions are fetched; another one has other versions of
            the same names.
    """

    def __init__(self, root: Path, registry: str) -> None:
        self._registry = registry
        self._models, self._last, self._locks = root / "models", root / "last", root / "locks"
        for folder in (self._models, self._last, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, version: ServedVersion) -> tuple[ServedVersion, Path]:
        """The bytes of a version, compared with its digest, from here or from the registry.

        Args:
            version: its digest is empty where none was recorded.

        Returns:
            The version with the digest of its bytes, and their folder.

        Raises:
            LoadFailedError: they cannot be fetched, or are not those of the digest.
        """
        if version.digest and not DIGEST.fullmatch(version.digest):
            raise LoadFailedError(
                f"its tag {tags.DIGEST} is {version.digest!r}, which is not a digest; register it"
                " anew"
            )
        if not version.digest:
            return self._fetched(version)
        with self._alone(version.digest):
            known = version.model_id or self._was_served(version)
            if known and (there := self._verified(version.digest)):
                return version, there
            return self._fetched(version)  # its tags alone may say which bytes it has

    def _fetched(self, version: ServedVersion) -> tuple[ServedVersion, Path]:
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._models))
        try:
            try:
                fetched = Path(
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=version.uri, dst_path=str(partial / "model")
                    )
                )
            except (MlflowException, OSError) as error:
                raise LoadFailedError(
                    f"its files cannot be fetched ({redact(str(error))})"
                ) from error
            found = digest.of_folder(fetched)
            if version.digest and found != version.digest:
                raise LoadFailedError(
                    f"its bytes are {found}, and it is tagged {version.digest}"
                    f"{digest.about_bytecode(fetched)}; restore what was registered"
                )
            with nullcontext() if version.digest else self._alone(found):
                target = self._placed(fetched, found)
            return ServedVersion(**{**asdict(version), "digest": found}), target
        finally:
            remove_tree(partial)

    def _placed(self, fetched: Path, found: str) -> Path:
        target = self._folder(found)
        if not self._verified(found):
            if target.exists():  # damaged
                remove_tree(target)
            fetched.replace(target)
        os.utime(target)
        return target

    @contextmanager
    def _alone(self, of: str) -> Iterator[None]:
        """Be the only server on this machine that fetches a digest."""
        folder = self._folder(of)
        try:
            with FileLock(self._locks / f"{folder.name}.lock", timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise LoadFailedError(
                f"another server has been fetching it into {folder} for {LOCK_SECONDS:.0f} s"
            ) from error

    def _folder(self, of: str) -> Path:
        """The folder of a digest.

        Raises:
            ValueError: it is not a digest; whoever may edit a version wrote it.
        """
        if not DIGEST.fullmatch(of):
            raise ValueError(f"{of!r} is not a digest of the form sha256:<64 hexadecimal digits>")
        return self._models / of.removeprefix("sha256:")

    def _verified(self, wanted: str) -> Path | None:
        """The folder with a digest; None where it is not here, or is damaged."""
        folder = self._folder(wanted)
        if not folder.is_dir():
            return None
        if digest.of_folder(folder) != wanted:
            log.warning("%s is damaged; it is fetched again", folder)
            return None
        os.utime(folder)
        return folder

    def touch(self, of: str) -> None:
        """Keep bytes that are not served any more for a day from now on."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._folder(of))

    def remember(self, version: ServedVersion, alias: str) -> None:
        """Record what is served under an alias, for a start without the registry."""
        record = self._record(version.name, alias)
        draft = record.with_name(f".{os.getpid()}-{record.name}")
        draft.write_text(json.dumps({"alias": alias, **asdict(version)}), "utf-8")
        draft.replace(record)

    def _record(self, name: str, alias: str) -> Path:
        """A file for a model's name, which may hold any letter, in one registry."""
        plain = "".join(letter if letter.isalnum() else "_" for letter in name)[:80]
        known = hashlib.sha256(f"{name}@{alias} {self._registry}".encode()).hexdigest()[:16]
        return self._last / f"{plain}-{known}.json"

    def _was_served(self, version: ServedVersion) -> bool:
        """Whether a version's files were compared with its digest, and served, before."""
        for record in self._last.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, AttributeError, KeyError):
                kept = json.loads(record.read_text("utf-8"))
                if self._record(version.name, kept.get("alias")) != record:
                    continue
                if (kept["number"], kept["digest"]) == (version.number, version.digest):
                    return True
        return False

    def remembered(self, name: str, alias: str) -> ServedVersion | None:
        """What was served last under an alias."""
        try:
            kept = json.loads(self._record(name, alias).read_text("utf-8"))
            kept.pop("alias")
            version = ServedVersion(**kept)
            texts = (version.name, version.variant, version.digest)
            if not all(isinstance(text, str) for text in texts) or type(version.number) is not int:
                raise ValueError("it is not the record of a version")
            self._folder(version.digest)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the record of models:/%s@%s cannot be read: %s", name, alias, error)
            return None
        return version if version.name == name else None

    def prune(self, serving: Iterable[str]) -> None:
        """Remove bytes that no alias serves and that were not used for a day.

        Args:
            serving: digests that this server serves.
        """
        kept = {self._folder(of).name for of in serving}
        for record in self._last.glob("*.json"):
            try:
                kept.add(self._folder(json.loads(record.read_text("utf-8"))["digest"]).name)
            except (OSError, ValueError, TypeError, KeyError):
                return  # nothing is removed while it is not known what is needed
        for folder in self._models.iterdir():
            try:
                old = time.time() - folder.stat().st_mtime > KEPT_SECONDS
            except FileNotFoundError:
                continue
            if old and folder.name not in kept:
                log.info("%s is not served any more; removed", folder)
                shutil.rmtree(folder, ignore_errors=True)
