"""Who may ask."""

import os
from pathlib import Path

import pytest

from steps.core.errors import ConfigError
from steps.serving.errors import ApiError
from steps.serving.keys import ApiKeys

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"
VARIABLE = "SLM_TEST_KEYS"


@pytest.fixture(autouse=True)
def nothing_hidden_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test hides its own files."""
    from steps.core import visible

    monkeypatch.setattr(visible, "named_files", {})
    monkeypatch.setattr(visible, "named_folders", {})


@pytest.mark.skipif(not os.access("/var/lib", os.W_OK), reason="needs a folder that stays visible")
@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("hidden", [True, False])
def test_a_child_sees_neither_the_keys_nor_those_that_replace_them(hidden: bool) -> None:
    import sys
    import tempfile

    from steps.core.processes import Child, Confinement, environment
    from steps.serving.server import _hide_keys

    # outside of the folders that every child finds empty
    with tempfile.TemporaryDirectory(prefix="slm-keys-", dir="/var/lib") as folder:
        file, done = Path(folder) / "api_keys", Path(folder) / "replaced"
        file.write_text(FIRST)
        if hidden:
            _hide_keys(str(file))
        source = (
            "import pathlib, time; file = pathlib.Path(__import__('sys').argv[1]);"
            "print('before', file.exists() and file.read_text(), flush=True); time.sleep(2);"
            "print('after', file.exists() and file.read_text(), flush=True)"
        )
        with Child(
            [sys.executable, "-c", source, str(file)],
            environment=environment(),
            cwd=Path("/"),
            confinement=Confinement(),
        ) as child:
            while "before" not in child.tail():
                assert child.alive
            done.write_text(SECOND)
            done.replace(file)
            child.wait(30)
            said = child.tail()
    assert "after" in said
    assert (FIRST in said, SECOND in said) == (not hidden, not hidden)


def test_without_keys_everybody_may_ask() -> None:
    keys = ApiKeys(None, VARIABLE)
    keys.check(None)
    assert not keys.required


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{FIRST}, {SECOND}")
    keys = ApiKeys(None, VARIABLE)
    keys.check(f"Bearer {FIRST}")
    keys.check(f"bearer  {SECOND} ")
    for wrong in (None, "", "Bearer", f"Basic {FIRST}", f"Bearer {FIRST}x", "Bearer \udcff", FIRST):
        with pytest.raises(ApiError) as caught:
            keys.check(wrong)
        assert caught.value.status == 401
        assert FIRST not in caught.value.message


def test_a_file_of_windows_editors_has_the_same_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf# of the team\r\n" + FIRST.encode() + b"\r\n")
    keys = ApiKeys(str(file), VARIABLE)
    keys.check(f"Bearer {FIRST}")
    with pytest.raises(ApiError):
        keys.check("Bearer \xef\xbb\xbf# of the team")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# team A\n{FIRST}\n")
    keys = ApiKeys(str(file), VARIABLE)
    keys.check(f"Bearer {FIRST}")
    draft = tmp_path / "draft"
    draft.write_text(f"{SECOND}\n")
    draft.replace(file)
    keys.check(f"Bearer {SECOND}")
    with pytest.raises(ApiError):
        keys.check(f"Bearer {FIRST}")


def test_the_last_keys_stay_where_the_file_is_lost_or_emptied(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(FIRST)
    keys = ApiKeys(str(file), VARIABLE)
    file.write_text("")
    os.utime(file, (1, 1))
    keys.check(f"Bearer {FIRST}")
    file.unlink()
    keys.check(f"Bearer {FIRST}")
    with pytest.raises(ApiError):
        keys.check(None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n"])
def test_a_file_without_a_good_key_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"serve\.api_keys_file") as caught:
        ApiKeys(str(file), VARIABLE)
    assert "short" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serve\.api_keys_file"):
        ApiKeys(str(tmp_path / "nothing"), VARIABLE)


def test_a_key_of_other_letters_is_the_bytes_that_the_header_has(tmp_path: Path) -> None:
    key = "schlüssel-für-à-and-more-à"
    file = tmp_path / "keys"
    file.write_text(key, "utf-8")
    header = f"Bearer {key}".encode().decode("latin-1")  # as a server reads a header
    ApiKeys(str(file), VARIABLE).check(header)
    with pytest.raises(ApiError):
        ApiKeys(str(file), VARIABLE).check(f"{header}x")


def test_a_file_of_keys_is_hidden_with_its_folder_so_that_a_new_one_is_too(tmp_path: Path) -> None:
    from steps.core import visible
    from steps.serving.server import _hide_keys

    folder = tmp_path / "keys"
    folder.mkdir()
    _hide_keys(str(folder / "api_keys"))
    assert str(folder) in visible.secret(os.environ)
    assert set(visible.named_folders) == {str(folder)}


def test_a_folder_that_is_needed_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from steps.core import visible
    from steps.serving.server import _hide_keys

    monkeypatch.chdir(tmp_path)
    (tmp_path / "api_keys").touch()
    _hide_keys("api_keys")
    hidden = visible.secret(os.environ)
    assert str(tmp_path / "api_keys") in hidden
    assert str(tmp_path) not in hidden
    assert "put it into a folder of its own" in caplog.text
