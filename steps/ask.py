"""Ask a registered model one question, the champion unless another alias is named.

python -m steps.ask --model smollm2_135m "What is the capital of Germany?"
python -m steps.ask --name my-model --alias champion-edge "What is the capital of Germany?"
"""

import argparse
import sys

from steps.core.errors import ConfigError
from steps.pipeline.asked_model import add_arguments, end, load, uri_of


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
    add_arguments(parser, max_tokens=128)
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
        end("ask", str(error), 2)
    model = load("ask", uri)
    from mlflow.exceptions import MlflowException

    messages = [{"role": "user", "content": given.question}]
    try:
        response = model.predict({"messages": messages, "max_tokens": given.max_tokens})
    except MlflowException as error:
        end("ask", f"{uri} does not answer: {error}")
    message = response[0]["choices"][0]["message"]
    print(message["content"] or message.get("reasoning_content", ""))
    if not message["content"] and message.get("reasoning_content"):
        print(
            f"ask: {given.max_tokens} tokens were reasoning alone; --max-tokens allows more",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
