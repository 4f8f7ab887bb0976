"""Detached signatures: who signed which bytes, and clear words about files that are not keys."""

import subprocess
from pathlib import Path

import pytest

from steps.core.errors import ConfigError
from steps.core.signatures import PASSWORD, identify, name_of, sign, signer_of, verify
from tests.core import keys

DATA = b'{"what": "report"}'


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_signature_names_its_key_and_no_other(tmp_path: Path, kind: str) -> None:
    alice, alice_public = keys.make(tmp_path, "alice", kind)
    bob, bob_public = keys.make(tmp_path, "bob", "ed25519")
    signature = sign(DATA, alice)
    assert signature.isascii() and b"\n" not in signature
    assert verify(DATA, signature, [bob_public, alice_public]) == "alice"
    assert verify(DATA, signature + b"\n", [alice_public]) == "alice"
    assert verify(DATA, signature, [bob_public]) is None
    assert verify(DATA, signature, []) is None
    assert verify(DATA + b" ", signature, [alice_public]) is None
    assert verify(DATA, sign(DATA, bob), [alice_public]) is None


@pytest.mark.parametrize("nonsense", [b"", b"!", b"\xff\xfe", b"aGVsbG8=", b"A" * 100_000])
def test_nonsense_is_nobodys_signature(tmp_path: Path, nonsense: bytes) -> None:
    for kind in ("ed25519", "p256"):
        assert verify(DATA, nonsense, [keys.make(tmp_path, kind, kind)[1]]) is None


def test_one_key_in_two_files_has_one_fingerprint(tmp_path: Path) -> None:
    alice, public = keys.make(tmp_path, "alice")
    second = tmp_path / "again.pem"
    second.write_bytes(Path(public).read_bytes())
    one, two = (
        identify(DATA, sign(DATA, alice), [public]),
        identify(DATA, sign(DATA, alice), [str(second)]),
    )
    assert one and two and (one.name, two.name) == ("alice", "again")
    assert one.fingerprint == two.fingerprint == signer_of(alice)


def test_encrypted_key_needs_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys.make(tmp_path, "alice", password="open sesame")
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(
        ConfigError, match=rf"signing_key='.*alice\.key\.pem': expected .*; {PASSWORD} is not set"
    ):
        sign(DATA, private)
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(ConfigError, match=f"{PASSWORD} is wrong"):
        sign(DATA, private)
    monkeypatch.setenv(PASSWORD, "open sesame")
    assert verify(DATA, sign(DATA, private), [public]) == "alice"


@pytest.mark.parametrize("kind", ["p384", "rsa"])
def test_keys_of_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    private, public = keys.make(tmp_path, "alice", kind)
    with pytest.raises(ConfigError, match="EC P-256 or Ed25519 private key, not"):
        sign(DATA, private)
    with pytest.raises(
        ConfigError, match=r"promotion\.approvers=.*EC P-256 or Ed25519 public key, not"
    ):
        verify(DATA, b"", [public], field="promotion.approvers")


def test_files_that_are_no_keys_are_refused(tmp_path: Path) -> None:
    private, public = keys.make(tmp_path, "alice")
    with pytest.raises(
        ConfigError, match=r"private key \(No such file or directory\); make one: `openssl genpkey"
    ):
        sign(DATA, tmp_path / "none.pem")
    with pytest.raises(
        ConfigError, match="expected a PEM file with an EC P-256 or Ed25519 private key; make one"
    ):
        sign(DATA, public)
    with pytest.raises(
        ConfigError,
        match="expected a PEM file with an EC P-256 or Ed25519 public key; make it: `openssl pkey",
    ):
        verify(DATA, b"", [private])
    with pytest.raises(ConfigError, match="Is a directory"):
        verify(DATA, b"", [tmp_path])


def test_keys_that_openssl_makes_are_read(tmp_path: Path) -> None:
    """The commands of the docstring."""
    for words in (
        "genpkey -algorithm ed25519 -out alice.key.pem",
        "pkey -in alice.key.pem -pubout -out alice.pub.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    assert (
        verify(DATA, sign(DATA, tmp_path / "alice.key.pem"), [tmp_path / "alice.pub.pem"])
        == "alice"
    )


def test_names_of_keys() -> None:
    assert [
        name_of(path) for path in ("keys/alice.pub.pem", "bob.pem", "/x/carol.pub", "dora", ".pem")
    ] == [
        "alice",
        "bob",
        "carol",
        "dora",
        ".pem",
    ]
