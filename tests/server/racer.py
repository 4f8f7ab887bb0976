"""A promoter in a process of its own: told a version on a line of input, it looks, says so, waits
for the start, and moves the champion.

    python -m tests.server.racer <registered name> <its own name>

Reads lines ``look <version>`` and ``go``, ``run <rounds> <versions …>`` to promote as often and as
fast as it can, or
``register <report>``; writes JSON lines.
"""

import itertools
import json
import sys

from steps.registry import alias_plan
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.client import RegistryClient
from steps.registry.journal import Journal
from steps.registry.record import Record, new_id


def main() -> None:
    name, own = sys.argv[1], sys.argv[2]
    store = AliasStore(RegistryClient(60), name)
    say({"ready": True})
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "look":
            seen, version = store.open(), int(rest[0])
            say({"champion": seen.aliases.get("champion")})
        elif word == "go":
            say(move(store, seen, version, own))
        elif word == "register":
            say(register(rest[0]))
        elif word == "run":
            versions = itertools.cycle(int(each) for each in rest[1:])
            say(
                {
                    "done": [
                        move(store, store.open(), next(versions), own) for _ in range(int(rest[0]))
                    ]
                }
            )


def move(store: AliasStore, seen: Journal, version: int, own: str) -> dict[str, object]:
    wanted = alias_plan.succeed(seen.aliases, "champion", version)
    moves = alias_plan.moves(seen.aliases, wanted)
    record = Record(id=new_id(), kind="promote", moves=moves, actor=own, reason="race")
    try:
        entry = store.commit(seen, record)
    except LostRaceError as error:
        return {"won": False, "why": str(error)}
    return {"won": True, "entry": entry.number if entry else None}


def register(uri: str) -> dict[str, object]:
    """Register a report as a step of its experiment does, with a canary that passes at once: it is
    not what is raced here.
    """
    import mlflow

    from steps.registry import canary
    from tests.registry import commands, scene

    canary.run = lambda uri, expected_digest, config: canary.Canary(  # noqa: ARG005
        uri, expected_digest or "", True, (), 0, 0.0, "none"
    )
    mlflow.set_experiment("test")
    try:
        done = commands.register(uri, scene.config("promotion.retry_seconds=60"))
    except LostRaceError as error:
        return {"won": False, "why": str(error)}
    return {"won": True, "entry": done.entry}


def say(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
