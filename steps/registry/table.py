"""Moves and the history as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import mlflow
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from steps.config.root import Config
from steps.core import screen
from steps.core.errors import StepError
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore
from steps.registry.aliases import CANDIDATE
from steps.registry.client import RegistryClient
from steps.registry.entry import Entry
from steps.registry.journal import Journal
from steps.registry.record import Move
from steps.registry.result import Promotion
from steps.registry.transfer import Transfer

SCHEMA = "slm-promote/history/1"
ARTIFACT = "history.json"
WIDEST = 120  # columns; longer lines are hard to read
INDENT = 6
SHOWN = 50  # newest entries that the screen shows, unless `limit` says otherwise


def show_moves(promotion: Promotion) -> None:
    """Print what moved, or would move."""
    verb = "would move" if promotion.dry_run else "moved"
    if not promotion.moves:
        print("nothing to move")
    for move in promotion.moves:
        print(f"{verb} {arrow(move)}")
    if promotion.entry:
        print(f"entry {promotion.entry} of models:/{promotion.name}.history")


def arrow(move: Move) -> str:
    """One move in words: ``champion: 2 → 1``."""
    return f"{move.alias}: {move.before or '–'} → {move.after or '–'}"  # noqa: RUF001  (an en dash stands for nothing)


def show_transfer(done: Transfer, verb: str) -> None:
    """Print what was carried, or would be."""
    if done.already:
        print(f"models:/{done.name}/{done.version} has these bytes already ({done.digest})")
        return
    uri = f"models:/{done.name}/{done.version}" if done.version else f"models:/{done.name}"
    verb = f"would be {verb}" if done.dry_run else verb
    count = f"{done.files} files, " if done.files else ""  # a dry run reads none
    print(f"{uri} {verb} ({count}{done.size / 1e6:.1f} MB, {done.digest}), archive {done.archive}")


def document(name: str, journal: Journal, limit: int | None = None) -> dict[str, Any]:
    """The history as JSON values: all entries, or the newest ``limit``, oldest first."""
    entries = journal.entries[-limit:] if limit else journal.entries
    return {
        "schema": SCHEMA,
        "name": name,
        "aliases": dict(sorted(journal.aliases.items())),
        "holes": list(journal.holes),
        "faults": {str(number): words for number, words in journal.faults.items()},
        "entries": [_plain(entry) for entry in entries],
    }


def show_history(
    config: Config,
    *,
    as_json: bool,
    limit: int | None = None,
    registry: RegistryClient | None = None,
) -> dict[str, Any]:
    """Print the history of ``target``, newest first, and return it as JSON values. Reads only, in
    five calls whatever its length.

    Args:
        config: ``target`` and ``promotion.retry_seconds`` count.
        as_json: print the JSON values instead.
        limit: newest entries to show; None is all as JSON and the newest fifty on the screen.
        registry: the tracking server; the default follows the process's URIs.

    Raises:
        StepError: there is no such registered model, nothing has been written down about it, or an
            entry is damaged.
    """
    target = targets.parse(config.target, config)
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    actual = registry.aliases(target.name)
    if actual is None:
        raise StepError(
            f"target=models:/{target.name}: no such registered model; make one with `mlflow run ."
            " --env-manager local -P model=…`"
        )
    store = AliasStore(registry, target.name)
    store.check()
    journal = store.read()
    if not journal.entries:
        raise StepError(
            f"models:/{target.name} has no history yet; the first is written by `mlflow run . -e"
            " register --env-manager local`, or by promote instead of register"
        )
    shown = document(target.name, journal, limit)
    if as_json:
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        _print(target.name, journal, actual, limit or SHOWN)
    return shown


def keep(run_id: str, shown: dict[str, Any]) -> None:
    """Put what :func:`show_history` returned on a run."""
    mlflow.MlflowClient().log_dict(run_id, shown, ARTIFACT)


def _print(name: str, journal: Journal, actual: dict[str, int], limit: int) -> None:
    console = screen.console(widest=WIDEST)
    console.print(_plain_text(f"models:/{name}"), style="bold")
    shown = journal.entries[-limit:]
    for entry in reversed(shown):
        _print_entry(console, entry)
    if older := len(journal.entries) - len(shown):
        console.print(_plain_text(f"… and {older} older: limit={len(journal.entries)} shows all"))
    now = ", ".join(f"@{alias} {version}" for alias, version in sorted(actual.items()))
    console.print(_plain_text(f"now: {now or 'no alias is set'}"))
    # set by people, and not a move
    placed = {alias: number for alias, number in actual.items() if alias != CANDIDATE}
    differing = sorted(
        alias
        for alias in {*placed, *journal.aliases}
        if placed.get(alias) != journal.aliases.get(alias)
    )
    if differing:
        words = (
            f"not in line with the history: {', '.join(differing)}; the next promote or rollback"
            " mends or notes it"
        )
        console.print(_plain_text(words))
    if journal.holes:
        console.print(
            _plain_text(f"entries {', '.join(map(str, journal.holes))} were deleted by somebody")
        )
    for words in journal.faults.values():
        console.print(_plain_text(f"{words}: this history is not as it was written"))


def _print_entry(console: Console, entry: Entry) -> None:
    """One entry: a line with what, when and who; below it the moves, why, and the evidence."""
    record = entry.record
    what = record.kind + (" (forced)" if record.forced else "") + _fate(entry)
    console.print(_plain_text(f"{entry.number:>4}  {_when(entry)}  {what} by {record.who}"))
    moves = ", ".join(arrow(move) for move in record.moves)
    lines = [*filter(None, [moves]), f"why: {record.reason}"]
    if record.evidence:
        lines.append(f"evidence: {record.evidence}")
    if missing := record.details.get("isolation_missing"):
        words = map(str, missing) if isinstance(missing, list | tuple) else [str(missing)]
        lines.append(f"its canary was not kept from: {'; '.join(words)}")
    for line in lines:
        console.print(Padding(_plain_text(line), (0, 0, 0, INDENT)))


def _fate(entry: Entry) -> str:
    """What became of an entry, where that is more than that it holds."""
    if entry.earlier:
        fate = " (of an earlier model of this name)"
    elif not entry.holds:
        fate = f" (lost to {entry.lost_to})" if entry.lost_to else " (lost)"
    else:
        fate = ""
    return fate + (" (altered since)" if entry.altered else "")


def _plain_text(text: str) -> Text:
    """Text that a terminal shows and does not obey: a reason may hold anything."""
    return Text(
        "".join(character if character.isprintable() else " " for character in text),
        overflow="fold",
    )


def _when(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "entry": entry.number,
        "when": (
            datetime.fromtimestamp(entry.created_ms / 1000, UTC).isoformat(timespec="milliseconds")
        ),
        "kind": record.kind,
        "moves": [vars(move) for move in record.moves],
        "who": record.actor,
        "authenticated": record.authenticated,
        "why": record.reason,
        "forced": record.forced,
        "profile": record.profile,
        "evidence": record.evidence,
        "evidence_digest": record.evidence_digest,
        "run_id": record.run_id,
        "details": dict(record.details),
        "holds": entry.holds,
        "lost_to": entry.lost_to,
        "settled": entry.settled,
        "digest": entry.digest,
        "altered": entry.altered,
        "earlier": entry.earlier,
        "identities": {number: dict(known) for number, known in record.identities.items()},
    }
