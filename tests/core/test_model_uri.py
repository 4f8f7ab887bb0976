"""The logged model behind a model URI, in a real store."""

import mlflow
import pytest

from steps.core.errors import StepError
from steps.core.model_uri import model_id_of

pytestmark = pytest.mark.usefixtures("tracking")


def test_a_model_without_versions_is_said_to_be_one() -> None:
    mlflow.MlflowClient().create_registered_model("empty")
    with pytest.raises(StepError, match=r"models:/empty has no version yet"):
        model_id_of("models:/empty/latest")
