"""API keys: from a file that is read again when it changes, and from the environment."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

from steps.core.errors import ConfigError
from steps.serving.errors import ApiError

log = logging.getLogger(__name__)

SHORTEST = 16  # characters of a key
CURE = "make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class ApiKeys:
    """Who may ask.

    Args:
        file: a key a line; lines that begin with # are comments. None is no file.
        variable: of the environment; holds keys with commas.

    Raises:
        ConfigError: the file cannot be read or holds no key, or a key is too short.
    """

    def __init__(self, file: str | None, variable: str) -> None:
        self._file = Path(file).expanduser() if file else None
        own = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
        self._own = _digests(own, variable)
        self._stamp: tuple[int, int] | None = None
        self._read: frozenset[bytes] = frozenset()
        self._fault = ""  # what was wrong with the file when it was looked at last
        if self._file is not None:
            try:
                self._stamp, self._read = _stamp(self._file), _keys_of(self._file)
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    "serve.api_keys_file", file, "a file with an API key a line", str(error)
                ) from error

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return self._file is not None or bool(self._own)

    def check(self, authorization: str | None) -> None:
        """Let a request with a valid ``Authorization: Bearer`` header pass.

        Raises:
            ApiError: 401.
        """
        if not self.required:
            return
        kind, _, given = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not given.strip():
            raise ApiError(
                401,
                "an API key is needed: send the header Authorization: Bearer <key>",
                code="missing_api_key",
            )
        # a header is its bytes, read as Latin-1; a key in the file is UTF-8
        digest = hashlib.sha256(given.strip(" \t").encode("latin-1", "replace")).digest()
        # all of them are compared, so that the time taken says nothing of any key
        matches = [hmac.compare_digest(digest, known) for known in self._known()]
        if not any(matches):
            raise ApiError(401, "the API key is not one of this server's", code="invalid_api_key")

    def _known(self) -> frozenset[bytes]:
        if self._file is None:
            return self._own
        try:
            if (stamp := _stamp(self._file)) != self._stamp:
                self._read, self._stamp = _keys_of(self._file), stamp
                log.info("serve.api_keys_file was read again: %d keys", len(self._read))
                self._fault = ""
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if str(error) != self._fault:
                log.warning("serve.api_keys_file cannot be read; its last keys stay: %s", error)
            self._fault = str(error)
        return self._own | self._read


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_ino


def _keys_of(file: Path) -> frozenset[bytes]:
    lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError("serve.api_keys_file", str(file), "a file with an API key a line", CURE)
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#") and len(line) < SHORTEST:
            expected = f"keys of at least {SHORTEST} characters"
            raise ConfigError("serve.api_keys_file", f"{file}:{number}", expected, CURE)
    return _digests(keys, "serve.api_keys_file")


def _digests(keys: list[str], where: str) -> frozenset[bytes]:
    if any(len(key) < SHORTEST for key in keys):
        raise ConfigError(where, "***", f"keys of at least {SHORTEST} characters", CURE)
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys)
