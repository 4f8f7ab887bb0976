"""Show who or what moved which alias, from where to where, when, why, and on which evidence.

Reads: ``target`` (``models:/<name>``), ``limit`` (newest entries to show); nothing else, so a user
who may only read can run it.
Writes: the entries to the screen, newest first, or as JSON with ``format=json``; ``history.json``
on its run, where
``mlflow run`` made one.

    mlflow run . -e history --env-manager local -P target=models:/smollm2-135m-instruct
"""

import sys

from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config, composed
from steps.pipeline.launcher import show_config

FORMATS = ("table", "json")
OPTIONS = ("format", "limit")  # of this command alone, beside the config's keys


def main() -> None:
    """Print the history; ends with 2 on a bad target and 1 where there is none or the server does
    not answer.
    """
    try:
        arguments = translate(sys.argv[1:])
        words = list(arguments.overrides)
        chosen = {
            key: value.strip("'")
            for key, _, value in (word.partition("=") for word in words)
            if key in OPTIONS
        }
        if chosen.get("format", "table") not in FORMATS:
            raise ConfigError("format", chosen["format"], f"one of {', '.join(FORMATS)}")
        limit = chosen.get("limit")
        if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
            raise ConfigError("limit", limit, "a number of entries of at least 1")
        kept = [word for word in words if word.partition("=")[0] not in OPTIONS]
        if arguments.flags and not arguments.inspecting:
            raise ConfigError(
                "overrides",
                " ".join(arguments.flags),
                "key=value; history runs once and makes no run of its own",
            )
        if arguments.inspecting:
            composed(kept)
            sys.argv = [sys.argv[0], *arguments.flags, *kept]
            return show_config()
        config = compose_config(kept)
    except ConfigError as error:
        print(f"history: error: {redact(str(error))}", file=sys.stderr)
        raise SystemExit(2) from error
    from steps.registry.table import history

    try:
        history(config, as_json=chosen.get("format") == "json", limit=int(limit) if limit else None)
    except ConfigError as error:
        print(f"history: error: {redact(str(error))}", file=sys.stderr)
        raise SystemExit(2) from error
    except StepError as error:
        print(f"history: error: {redact(str(error))}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
