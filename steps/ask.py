"""Ask a registered model one question, the champion unless another alias is named.

python -m steps.ask --model smollm2_135m "What is the capital of Germany?"
python -m steps.ask --name my-model --alias champion-edge "What is the capital of Germany?"
"""

import argparse
import os
import sys

from steps.core.errors import ConfigError, StepError
from steps.pipeline.asked_model import uri_of


def main() -> None:
    """Print the answer; ends with 2 on a bad model name and 1 where the registry has no such
    version.
    """
    parser = argparse.ArgumentParser(
        prog="python -m steps.ask",
        description="Ask a registered model one question.",
        epilog='python -m steps.ask --name my-model "What is the capital of Germany?"',
    )
    parser.add_argument("question", help="in quotes")
    parser.add_argument(
        "--model",
        default="smollm2_135m",
        help="a config of conf/model/, owner/name of the Hub, or a folder (default: %(default)s)",
    )
    parser.add_argument(
        "--name", help="name in the Model Registry, where it is not the one that the config gives"
    )
    parser.add_argument("--alias", default="champion", help="whose version (default: %(default)s)")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=128,
        help="tokens the answer may have (default: %(default)s)",
    )
    given = parser.parse_args()
    try:
        if not given.question.strip():
            raise ConfigError(
                "question",
                given.question,
                "a question",
                'write make ask Q="What is the capital of Germany?"',
            )
        uri = uri_of(given.model, given.name, given.alias)
    except ConfigError as error:
        print(f"ask: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.exceptions import MlflowException

    from steps.core import tracking_store

    try:
        tracking_store.require_server(mlflow.get_registry_uri())
        model = mlflow.pyfunc.load_model(uri)
    except StepError as error:
        print(f"ask: error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except MlflowException as error:
        print(
            f"ask: error: {uri} cannot be loaded: {error}; the Models page (make ui) shows what"
            " there is",
            file=sys.stderr,
        )
        raise SystemExit(1) from error
    messages = [{"role": "user", "content": given.question}]
    try:
        response = model.predict({"messages": messages, "max_tokens": given.max_tokens})
    except MlflowException as error:
        print(f"ask: error: {uri} does not answer: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    message = response[0]["choices"][0]["message"]
    print(message["content"] or message.get("reasoning_content", ""))
    if not message["content"] and message.get("reasoning_content"):
        print(
            f"ask: {given.max_tokens} tokens were reasoning alone; --max-tokens allows more",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
