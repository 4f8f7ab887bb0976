"""Which registered model `ask` and `chat` talk to, and how it is loaded."""

import argparse
import os
import sys
from typing import Any, NoReturn

from steps.config import names
from steps.config.serve import ALIAS
from steps.core.errors import ConfigError, StepError
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config

SCHEME = "models:/"


def add_arguments(parser: argparse.ArgumentParser, *, max_tokens: int) -> None:
    """Add the arguments that name a model and bound its answers.

    Args:
        parser: of the command line.
        max_tokens: default of ``--max-tokens``.
    """
    parser.add_argument(
        "--model",
        default="",
        help="a file of conf/model/, owner/name of the Hub, or a folder (default: the config's)",
    )
    parser.add_argument(
        "--name", help="name in the Model Registry, where it is not the one that the config gives"
    )
    parser.add_argument("--alias", default="champion", help="whose version (default: %(default)s)")
    parser.add_argument(
        "--max-tokens",
        type=_at_least_one,
        default=max_tokens,
        help="tokens an answer may have (default: %(default)s)",
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of at least 1")
    return int(text)


def load(command: str, uri: str) -> Any:
    """The model behind ``uri`` as MLflow loads it; ends the process with 1 where it cannot be.

    Args:
        command: that the error names.
        uri: ``models:/<name>@<alias>``.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import mlflow
    from mlflow.exceptions import MlflowException

    from steps.core import tracking_store

    try:
        tracking_store.require(mlflow.get_registry_uri())
        return mlflow.pyfunc.load_model(uri)
    except StepError as error:
        end(command, str(error))
    except MlflowException as error:
        cure = "the Models page (make ui) shows what there is"
        end(command, f"{uri} cannot be loaded: {str(error).rstrip('.')}; {cure}")


def end(command: str, said: str, code: int = 1) -> NoReturn:
    """End the process with an error in one line."""
    print(f"{command}: error: {said}", file=sys.stderr)
    raise SystemExit(code)


def uri_of(model: str, name: str | None, alias: str) -> str:
    """``models:/<name>@<alias>``.

    Args:
        model: a config of ``conf/model/``, a repository or a folder, whose registered name counts
            where ``name`` is not given.
        name: of the registered model, also as ``models:/<name>`` or ``models:/<name>@<alias>``.
        alias: where the name has none.

    Raises:
        ConfigError: not a name, or no such model config.
    """
    alias = alias.removeprefix("@")
    if not ALIAS.fullmatch(alias):
        expected = "an alias: letters, digits, dots, dashes, underscores"
        raise ConfigError("--alias", alias, expected, "write --alias champion")
    if name:
        bare, _, own = name.removeprefix(SCHEME).partition("@")
        return f"{SCHEME}{names.check('--name', bare, 'write --name my-model')}@{own or alias}"
    config = compose_config(translate(["--model", model]).overrides)
    return f"{SCHEME}{config.model.registered_name}@{alias}"
