"""Chat with a registered model in the terminal; the model stays loaded between the turns.

python -m steps.chat --model smollm2_135m
python -m steps.chat --name my-model --alias challenger
"""

import argparse
import re
import sys
import time
from typing import Any

from steps.core.errors import ConfigError
from steps.pipeline.asked_model import add_arguments, end, load, uri_of

HELP = "/new begins another conversation, /help says this, /quit or Ctrl-D ends."
COMMAND = re.compile(r"/[A-Za-z]+")  # a word of a user that is not for the model


def main() -> None:
    """Read, answer as it is generated, repeat; ends with 2 on a bad model name and 1 where the
    registry has no such version.
    """
    parser = argparse.ArgumentParser(
        prog="python -m steps.chat",
        description="Chat with a registered model.",
        epilog="python -m steps.chat --name my-model --alias challenger",
    )
    add_arguments(parser, max_tokens=512)
    parser.add_argument("--system", help="what the model is told first")
    given = parser.parse_args()
    try:
        uri = uri_of(given.model, given.name, given.alias)
    except ConfigError as error:
        end("chat", str(error), 2)
    print(f"loading {uri} …", file=sys.stderr)
    model = load("chat", uri)
    print(HELP, file=sys.stderr)
    opening = [{"role": "system", "content": given.system}] if given.system else []
    converse(model, opening, given.max_tokens)


def converse(model: Any, opening: list[dict[str, str]], max_tokens: int) -> None:
    """Take turns until the input ends.

    Args:
        model: a loaded pyfunc model of this project.
        opening: messages that every conversation begins with.
        max_tokens: of an answer.
    """
    import readline  # noqa: F401 - gives input() a history

    from mlflow.exceptions import MlflowException

    messages = list(opening)
    while True:
        try:
            said = input("> ").strip()
        except KeyboardInterrupt:  # as in a shell: the line is dropped
            print("\n(Ctrl-D ends)", file=sys.stderr)
            continue
        except EOFError:
            print()
            return
        if COMMAND.fullmatch(said):
            said = said.lower()
        if said == "/quit":
            return
        if said == "/new":
            messages = list(opening)
            continue
        if not said:
            continue
        if COMMAND.fullmatch(said):
            unknown = "" if said == "/help" else f"{said} is not a command: "
            print(f"{unknown}{HELP}", file=sys.stderr)
            continue
        asked = [*messages, {"role": "user", "content": said}]
        try:
            answer = _printed(model, asked, max_tokens)
        except MlflowException as error:
            print(f"chat: error: {error} (/new begins another conversation)", file=sys.stderr)
            continue
        messages = [*asked, {"role": "assistant", "content": answer}]


def _printed(model: Any, messages: list[dict[str, str]], max_tokens: int) -> str:
    """Print an answer as it comes; Ctrl-C cuts it."""
    row = {"messages": messages, "max_tokens": max_tokens}
    row |= {"stream_options": {"include_usage": True}}
    text, tokens, started = "", 0, time.perf_counter()
    chunks = model.predict_stream(row)
    try:
        for chunk in chunks:
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            for choice in chunk["choices"]:
                delta = choice["delta"]
                shown = (delta.get("reasoning_content") or "") + (delta.get("content") or "")
                text += delta.get("content") or ""
                print(shown, end="", flush=True)
    except KeyboardInterrupt:
        print(" …", end="")
    finally:
        chunks.close()
    print()
    if tokens:
        rate = tokens / (time.perf_counter() - started)
        print(f"({tokens} tokens, {rate:.0f} tokens/s)", file=sys.stderr)
    return text


if __name__ == "__main__":
    main()
