"""Who may ask."""

import os
from pathlib import Path

import pytest

from steps.core.errors import ConfigError
from steps.serving.errors import ApiError
from steps.serving.keys import ApiKeys

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"
VARIABLE = "SLM_TEST_KEYS"


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
