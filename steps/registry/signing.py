"""Who made an archive: a signature over all of its files, in the form of OpenSSF Model Signing.

A signature proves that whoever holds the private key made this folder. It does not say when, nor
that the version is still wanted: an old archive with a good signature stays an archive with a good
signature. The ``model_signing`` command line verifies the same file::

    model_signing verify key <archive> --signature <archive>/archive.sig --ignore-paths
    <archive>/archive.sig --public_key <key.pub>
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from steps.core.errors import ConfigError, StepError
from steps.registry.archive import MANIFEST, SIGNATURE
from steps.registry.result import RefusedError

PASSWORD_ENV = "SLM_SIGNING_KEY_PASSWORD"  # of the private key, where it is encrypted
KEYS = "an elliptic-curve key (P-256, P-384 or P-521) as a PEM file"


def check_private_key(text: str) -> Path:
    """The file of ``signing_key``, once it was found to hold a key that can sign.

    Raises:
        ConfigError: there is no such file, it is not such a key, or its password is missing or
            wrong.
        StepError: the package model-signing is not installed.
    """
    path = _file("signing_key", text)
    _library("signing")
    password = os.environ.get(PASSWORD_ENV)
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            "signing_key",
            text,
            KEYS,
            f"for an encrypted key, export {PASSWORD_ENV}; {_line(error)}",
        ) from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigError(
            "signing_key",
            text,
            KEYS,
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        )
    return path


def check_public_key(text: str) -> Path:
    """The file of ``promotion.require_signer``, once it was found to hold a public key.

    Raises:
        ConfigError: there is no such file, or it is not such a key.
        StepError: the package model-signing is not installed.
    """
    path = _file("promotion.require_signer", text)
    _library("verifying")
    _public_key(path)
    return path


def sign(folder: Path, private_key: Path) -> Path:
    """Write the signature of an archive into it.

    Args:
        folder: the archive, whole but for its signature.
        private_key: PEM file, as :func:`check_private_key` returns it.

    Returns:
        The signature's file.
    """
    library = _library("signing")
    place = folder / SIGNATURE
    password = os.environ.get(PASSWORD_ENV)
    signer = library.Config().use_elliptic_key_signer(
        private_key=private_key, password=password.encode() if password else None
    )
    signer.set_hashing_config(_hashing()).sign(folder, place)
    return place


@dataclass(frozen=True)
class Signature:
    """A signature that was verified.

    Attributes:
        signer: ``sha256:…``, the fingerprint of the key (over its DER form), for the version's
        tags.
        manifest_sha256: of the manifest that was signed, in hexadecimal.
    """

    signer: str
    manifest_sha256: str


def verify(folder: Path, public_key: Path) -> Signature:
    """Check that the holder of a key made this archive.

    Args:
        folder: the archive.
        public_key: PEM file, as :func:`check_public_key` returns it.

    Raises:
        RefusedError: there is no signature, it is by another key, or a file changed since.
    """
    place = folder / SIGNATURE
    if not place.is_file() or place.is_symlink():
        raise RefusedError(
            f"archive={folder}: it is not signed, as promotion.require_signer={public_key.name}"
            " requires; export it with signing_key=…"
        )
    library = _library("verifying")
    data = place.read_bytes()  # once: whoever can write into the folder may replace it meanwhile
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the library logs what is raised
    try:
        with TemporaryDirectory(prefix="slm-signature-") as private:
            copy = Path(private, SIGNATURE)
            copy.write_bytes(data)
            library.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(
                _hashing()
            ).verify(folder, copy)
        manifest = _signed_manifest(data)
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        mismatch = str(error).startswith("Signature mismatch")
        why = "files differ from those that were signed" if mismatch else _line(error)
        raise RefusedError(
            f"archive={folder}: its signature does not verify with"
            f" promotion.require_signer={public_key.name} ({why}); get the archive from whoever"
            " holds that key"
        ) from error
    finally:
        logging.disable(before)
    return Signature(fingerprint(public_key), manifest)


def _signed_manifest(signature: bytes) -> str:
    """SHA-256 of the archive's manifest in the statement of a verified signature.

    Raises:
        ValueError: the statement does not name it.
    """
    payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    for resource in payload["predicate"]["resources"]:
        if resource["name"] == MANIFEST and resource["algorithm"] == "sha256":
            return str(resource["digest"])
    raise ValueError(f"it does not name {MANIFEST}")


def fingerprint(public_key: Path) -> str:
    """``sha256:…`` over the DER form of a public key, as ``openssl pkey`` writes it."""
    return "sha256:" + hashlib.sha256(_public_key(public_key)).hexdigest()


def _public_key(path: Path) -> bytes:
    """The key in DER form."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            "promotion.require_signer", str(path), f"the public part of {KEYS}", _line(error)
        ) from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError(
            "promotion.require_signer",
            str(path),
            f"the public part of {KEYS}",
            "openssl pkey -in key.pem -pubout -out key.pub",
        )
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _hashing() -> Any:
    """All files but the signature, by their sha256; a link is refused."""
    return (
        _library("hashing")
        .Config()
        .set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
        .set_allow_symlinks(False)
    )


def _library(part: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{part}")
    except ImportError as error:
        raise StepError(
            "signing_key and promotion.require_signer need the package model-signing, which cannot"
            f" be imported ({_line(error)}); pip install model-signing"
        ) from error


def _file(field: str, text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ConfigError(field, text, f"a file that holds {KEYS}")
    return path.absolute()


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
