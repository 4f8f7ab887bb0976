"""A candidate is found by every kind of model URI, and known by its tags."""

from collections.abc import Callable

import pytest

from steps.evaluation.description import describe


def test_all_kinds_of_uris_name_the_same_model(
    clerk: Callable[[str], str], scoring_store: str
) -> None:
    import mlflow

    client = mlflow.MlflowClient(scoring_store)
    uri = clerk("good")
    model = client.get_logged_model(uri.removeprefix("models:/"))
    version = mlflow.register_model(uri, "clerk-described")
    client.set_registered_model_alias("clerk-described", "champion", version.version)
    wanted = describe(uri)
    assert (wanted.variant, wanted.licence, wanted.model_id) == (
        "transformers",
        "MIT",
        model.model_id,
    )
    assert wanted.digest.startswith("sha256:") and wanted.size_bytes and wanted.role == "candidate"
    for other in (
        f"models:/clerk-described/{version.version}",
        "models:/clerk-described@champion",
        f"runs:/{model.source_run_id}/clerk",
    ):
        described = describe(other, "incumbent")
        assert (described.model_id, described.digest, described.variant, described.role) == (
            wanted.model_id,
            wanted.digest,
            "transformers",
            "incumbent",
        ), other


def test_an_alias_is_resolved_once(clerk: Callable[[str], str], scoring_store: str) -> None:
    """What is loaded is what was described, wherever the alias points by then."""
    import mlflow

    client = mlflow.MlflowClient(scoring_store)
    first, second = (
        mlflow.register_model(clerk(mood), "clerk-moving").version for mood in ("good", "forgetful")
    )
    client.set_registered_model_alias("clerk-moving", "champion", first)
    described = describe("models:/clerk-moving@champion", "incumbent")
    client.set_registered_model_alias("clerk-moving", "champion", second)
    assert (described.uri, described.load_uri) == ("models:/clerk-moving@champion", clerk("good"))
    assert described.version == str(first)


def test_no_such_model(scoring_store: str) -> None:
    from mlflow.exceptions import MlflowException

    assert scoring_store
    with pytest.raises(MlflowException):
        describe("models:/nothing-of-this-name/1")


def test_bytes_that_nobody_hashed_are_hashed(
    clerk: Callable[[str], str], scoring_store: str
) -> None:
    import mlflow

    uri = clerk("good")
    tagged = describe(uri).digest
    client = mlflow.MlflowClient(scoring_store)
    client.delete_logged_model_tag(uri.removeprefix("models:/"), "slm.digest")
    try:
        assert describe(uri).digest.startswith("sha256:")
    finally:
        client.set_logged_model_tags(uri.removeprefix("models:/"), {"slm.digest": tagged})
