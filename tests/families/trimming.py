"""Cuts a published tokenizer down to its first entries, for tiny models.

All that differs between families stays: normaliser, pre-tokenizer, decoder, post-processor, byte
fallback, added tokens and their flags.
What goes are the later merges, which spell longer words. `test_vocabularies` tries the tokenizers
whole.
"""

from collections.abc import Callable
from typing import Any

SIZE = 12_000  # entries that are kept; added tokens past them are kept as well, and move up
# of config.json and generation_config.json
ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")

Renumber = Callable[[int], int]


def trimmed(tokenizer: dict[str, Any]) -> tuple[dict[str, Any], Renumber]:
    """Cut a tokenizer.json.

    Args:
        tokenizer: its content; byte-pair encoding.

    Returns:
        The content of the smaller one, and what gives a token's new id. Of an id that no token has,
        the next token's is given.
    """
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    vocabulary = {text: number for text, number in model["vocab"].items() if number < SIZE}
    moved = sorted({int(one["id"]) for one in added if int(one["id"]) >= SIZE})
    places = {number: SIZE + place for place, number in enumerate(moved)}

    def renumber(number: int) -> int:
        if number < SIZE:
            return number
        return SIZE + sum(before < number for before in moved)

    merges = [merge for merge in model["merges"] if _kept(merge, vocabulary)]
    late = {
        one["content"]: places[int(one["id"])]
        for one in added
        if one["content"] in model["vocab"] and int(one["id"]) in places
    }
    smaller = {**tokenizer, "model": {**model, "vocab": {**vocabulary, **late}, "merges": merges}}
    smaller["added_tokens"] = [{**one, "id": renumber(int(one["id"]))} for one in added]
    smaller["post_processor"] = _with_ids(tokenizer.get("post_processor"), renumber)
    return smaller, renumber


def renumbered(config: dict[str, Any], renumber: Renumber) -> dict[str, Any]:
    """A config whose token ids, and number of embeddings, are a smaller tokenizer's."""
    made = dict(config)
    for key in ID_KEYS:
        if isinstance(made.get(key), int):
            made[key] = renumber(made[key])
        elif isinstance(made.get(key), list):
            made[key] = [renumber(number) for number in made[key]]
    if made.get("vocab_size", 0) > SIZE:
        made["vocab_size"] = renumber(made["vocab_size"])
    return made


def _kept(merge: Any, vocabulary: dict[str, int]) -> bool:
    left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
    return left in vocabulary and right in vocabulary and left + right in vocabulary


def _with_ids(processor: Any, renumber: Renumber) -> Any:
    """A post-processor whose special tokens have their new ids."""
    if isinstance(processor, dict) and "special_tokens" in processor:
        special = {
            text: {**one, "ids": [renumber(number) for number in one["ids"]]}
            for text, one in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": special}
    if isinstance(processor, dict) and "processors" in processor:
        return {
            **processor,
            "processors": [_with_ids(one, renumber) for one in processor["processors"]],
        }
    return processor
