"""Detached signatures over bytes, by EC P-256 (ECDSA with SHA-256) or Ed25519 keys in PEM files.

    # private: kept by alice, named by signing_key
    openssl genpkey -algorithm ed25519 -out alice.key.pem
    # public: named by the policy
    openssl pkey -in alice.key.pem -pubout -out alice.pub.pem

A signature is one line of base64, so that it fits into a file, a tag and a terminal alike.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.core import digest
from steps.core.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

# environment variable for an encrypted private key; the value itself is never configured
PASSWORD = "SLM_SIGNING_KEY_PASSWORD"
LARGEST_KEY_FILE = 65_536  # bytes; a PEM key of these kinds has a few hundred
ENDINGS = (".pub.pem", ".pem", ".pub")  # of a public key's file, left out of the signer's name
MAKE = "make one: `openssl genpkey -algorithm ed25519 -out key.pem`"
MAKE_PUBLIC = "make it: `openssl pkey -in key.pem -pubout -out name.pub.pem`"


@dataclass(frozen=True)
class Signer:
    """Whose signature it is."""

    name: str  # of the public key's file, without its ending
    # sha256:… over the public key (DER), the same for every file that holds the key
    fingerprint: str


def sign(data: bytes, key_path: str | Path, *, field: str = "signing_key") -> bytes:
    """Sign bytes.

    Args:
        data: what is signed.
        key_path: PEM file of the private key; an encrypted one is opened with the password in
            ``SLM_SIGNING_KEY_PASSWORD``.
        field: config key that named the file, for the error.

    Returns:
        One line of base64, ASCII.

    Raises:
        ConfigError: the file cannot be read, is not a private key of a supported kind, or its
            password is missing or wrong.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = _private(key_path, field)
    raw = (
        key.sign(data)
        if isinstance(key, Ed25519PrivateKey)
        else key.sign(data, ECDSA(hashes.SHA256()))
    )
    return base64.b64encode(raw)


def verify(
    data: bytes, signature: bytes, public_key_paths: Sequence[str | Path], *, field: str = "signers"
) -> str | None:
    """Name of the key that signed these bytes; arguments and errors as for :func:`identify`."""
    signer = identify(data, signature, public_key_paths, field=field)
    return signer.name if signer else None


def identify(
    data: bytes, signature: bytes, public_key_paths: Sequence[str | Path], *, field: str = "signers"
) -> Signer | None:
    """Which of several public keys a signature belongs to.

    Args:
        data: what was signed.
        signature: as :func:`sign` returned it; anything else is not a valid signature, and not an
            error.
        public_key_paths: PEM files of the public keys that count.
        field: config key that named the files, for the error.

    Returns:
        The signer; None where none of the keys signed these bytes.

    Raises:
        ConfigError: a key file cannot be read, or is not a public key of a supported kind.
    """
    keys = [(Path(path), _public(path, field)) for path in public_key_paths]
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    for path, key in keys:
        if _fits(key, raw, data):
            return Signer(name_of(path), _fingerprint(key))
    return None


def signer_of(key_path: str | Path, *, field: str = "signing_key") -> str:
    """Fingerprint of the public half of a private key; errors as for :func:`sign`."""
    return _fingerprint(_private(key_path, field).public_key())


def fingerprint_of(public_key_path: str | Path, *, field: str = "signers") -> str:
    """Fingerprint of a public key; errors as for :func:`identify`."""
    return _fingerprint(_public(public_key_path, field))


def name_of(public_key_path: str | Path) -> str:
    """What a public key is called: the name of its file, without ``.pub.pem``, ``.pem`` or
    ``.pub``.
    """
    name = Path(public_key_path).name
    ending = next((end for end in ENDINGS if name.endswith(end) and name != end), "")
    return name.removesuffix(ending)


def _fits(key: EllipticCurvePublicKey | Ed25519PublicKey, raw: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(raw, data)
        else:
            key.verify(raw, data, ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _fingerprint(key: EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return digest.of_bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _private(path: str | Path, field: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = "a PEM file with an EC P-256 or Ed25519 private key"
    content, password = _content(path, field, expected, MAKE), os.environ.get(PASSWORD)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:  # it is encrypted
        try:
            key = load_pem_private_key(content, (password or "").encode() or None)
        except (TypeError, ValueError) as error:
            given = "is wrong" if password else "is not set"
            raise ConfigError(
                field,
                str(path),
                "a private key that opens with its password",
                f"{PASSWORD} {given}: export it",
            ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(field, str(path), expected, MAKE) from error
    if isinstance(key, Ed25519PrivateKey) or (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ConfigError(field, str(path), f"{expected}, not {type(key).__name__}", MAKE)


def _public(path: str | Path, field: str) -> EllipticCurvePublicKey | Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    expected = "a PEM file with an EC P-256 or Ed25519 public key"
    content = _content(path, field, expected, MAKE_PUBLIC)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(field, str(path), expected, MAKE_PUBLIC) from error
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ConfigError(field, str(path), f"{expected}, not {type(key).__name__}", MAKE)


def _content(path: str | Path, field: str, expected: str, cure: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST_KEY_FILE)
    except OSError as error:
        raise ConfigError(
            field, str(path), f"{expected} ({error.strerror or error})", cure
        ) from error
