"""Default names of models, and models that are given in one word."""

import pytest

from steps.config import names
from steps.config.model_names import of_folder, of_repository
from steps.core.errors import ConfigError
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config

COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct"),
        ("gpt2", "gpt2"),
        ("someone/_private_.model", "private_.model"),
        ("someone/chat.History", "chat-history"),
        ("someone/null", "null-model"),
        (None, ""),
    ],
)
def test_a_repository_names_its_model(repo: str | None, name: str) -> None:
    assert of_repository(repo) == name
    assert not name or names.fault(name) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/mine", "mine"),
        ("/models/My Model (v2)/", "my-model--v2"),
        (f"/cache/models--Qwen--Qwen3-0.6B/snapshots/{COMMIT}", "qwen3-0.6b"),
        (f"/blobs/{COMMIT}", "local-model"),
        (None, ""),
    ],
)
def test_a_folder_names_its_model(path: str | None, name: str) -> None:
    assert of_folder(path) == name
    assert not name or names.fault(name) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "Qwen/Qwen2.5-0.5B-Instruct"],
        ["model=Qwen/Qwen2.5-0.5B-Instruct"],
        ["--overrides", "model=Qwen/Qwen2.5-0.5B-Instruct"],
        ["--model", "hub", "--model.repo", "Qwen/Qwen2.5-0.5B-Instruct"],
    ],
)
def test_a_repository_is_a_model_in_one_word(words: list[str]) -> None:
    given = translate(words).overrides
    model = compose_config(given).model
    assert (model.source.value, model.repo) == ("hub", "Qwen/Qwen2.5-0.5B-Instruct")
    assert (model.registered_name, model.revision) == ("qwen2.5-0.5b-instruct", None)
    # what is handed on to a child, or shown to a reader, is understood as the same
    assert translate(given).overrides == given


@pytest.mark.parametrize("path", ["/models/mine", "/models/my own, one", "./mine", "~/mine"])
def test_a_folder_is_a_model_in_one_word(path: str) -> None:
    given = translate(["--model", path]).overrides
    model = compose_config(given).model
    assert (model.source.value, model.path) == ("folder", path)
    assert model.registered_name == path.rpartition("/")[2].replace(" ", "-").replace(",", "-")


def test_a_name_of_ones_own_has_the_last_word() -> None:
    words = translate(["--model", "/models/mine", "--model.registered_name", "other"]).overrides
    assert compose_config(words).model.registered_name == "other"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=hub"], r"model\.repo=None: expected a value, as model\.source is 'hub'"),
        (["model=a/b/c"], r"model\.repo='a/b/c': expected owner/name, as the hub shows it"),
        (["-m", "model=a/b,c/d"], r"model='a/b,c/d': .*write model=hub model\.repo="),
        (["model=smolm2_135m"], r"model='smolm2_135m': .*; did you mean smollm2_135m"),
        (["model=qwen"], r"model='qwen': .*; a repository is owner/name, and a folder begins"),
    ],
)
def test_what_is_no_model_says_how_one_is_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_config(translate(words).overrides)


def test_what_may_be_a_folder_or_a_repository_is_asked_back(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    Path(str(tmp_path), "models", "mine").mkdir(parents=True)
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(ConfigError, match=r"the folder is there: pass model=\./models/mine"):
        translate(["model=models/mine"])
