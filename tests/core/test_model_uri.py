"""The logged model behind a model URI, in a real store."""

import mlflow
import pytest

from steps.core.errors import StepError
from steps.core.model_uri import ModelUri, logged_model_of, model_id_of, parse

pytestmark = pytest.mark.usefixtures("tracking")


def test_a_model_without_versions_is_said_to_be_one() -> None:
    mlflow.MlflowClient().create_registered_model("empty")
    with pytest.raises(StepError, match=r"models:/empty has no version yet"):
        model_id_of("models:/empty/latest")


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("models:/m-0a", ModelUri(model_id="m-0a")),
        ("models:/tiny", ModelUri(name="tiny")),
        ("models:/tiny/12", ModelUri(name="tiny", version="12")),
        ("models:/tiny/latest", ModelUri(name="tiny", version="latest")),
        ("models:/m-like/3", ModelUri(name="m-like", version="3")),
        ("models:/tiny@champion", ModelUri(name="tiny", alias="champion")),
        ("models:/a@b@champion", ModelUri(name="a@b", alias="champion")),
        ("models:/tiny/Production", None),
        ("models:/a/b/3", None),
        ("models:/", None),
        ("runs:/0/model", None),
    ],
)
def test_the_forms_of_a_model_uri(uri: str, parts: ModelUri | None) -> None:
    assert parse(uri) == parts


@pytest.mark.parametrize("uri", ["models:/tiny", "models:/tiny/Production", "tiny"])
def test_a_text_that_names_no_version_is_refused(uri: str) -> None:
    with pytest.raises(StepError, match=rf"^{uri} is not the URI of a model; expected models:/m-…"):
        model_id_of(uri)


def test_a_source_is_followed_through_copies() -> None:
    sources = {("b", 2): "models:/a/1", ("a", 1): "models:/m-1", ("loop", 1): "models:/loop/1"}

    def lookup(name: str, number: int) -> str | None:
        return sources.get((name, number))

    assert logged_model_of("models:/b/2", lookup) == "m-1"
    assert logged_model_of("models:/gone/1", lookup) is None
    assert logged_model_of("models:/loop/1", lookup) is None
    assert logged_model_of("runs:/0/model", lookup) is None
