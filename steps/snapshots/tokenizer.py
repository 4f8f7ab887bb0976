"""Whether a checkpoint's tokenizer and chat template can be used, found by loading them."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steps.snapshots.errors import one_line
from steps.snapshots.selection import Place, read_object, some

log = logging.getLogger(__name__)
SAVE = "save it beside the weights with tokenizer.save_pretrained(…)"
PROBE = "Hello"


def require(folder: Path, place: Place, config: Mapping[str, Any], vocabulary: int) -> None:
    """Refuse a tokenizer that does not load, has no chat template that renders, or does not fit the
    weights.

    Args:
        folder: config.json and the tokenizer's files.
        place: for messages.
        config: content of config.json.
        vocabulary: tokens that the weights have an embedding for.

    Raises:
        SnapshotError: of the first thing that is in the way.
    """
    tokenizer = _load(folder, place)
    _require_template(tokenizer, folder, place)
    _require_end(tokenizer, folder, place, config)
    _require_embeddings(tokenizer, place, vocabulary)


def _load(folder: Path, place: Place) -> Any:
    from transformers import AutoTokenizer

    names = {file.name for file in folder.iterdir()}
    settings = read_object(folder / "tokenizer_config.json", place, needed=False)
    sentencepiece = sorted(name for name in names if name.endswith(".model"))
    if "tokenizer.json" not in names:
        if not sentencepiece and not names & {"vocab.json", "vocab.txt"}:
            raise place.refusal("holds no tokenizer", SAVE)
        if sentencepiece and importlib.util.find_spec("sentencepiece") is None:
            raise place.refusal(
                f"holds {sentencepiece[0]} and no tokenizer.json, and the package that converts it,"
                " sentencepiece, is not installed",
                "where it is, AutoTokenizer.from_pretrained(…).save_pretrained(…) writes"
                " tokenizer.json: put that beside the weights",
            )
        if "vocab.json" in names and "merges.txt" not in names:
            raise place.refusal("holds vocab.json without merges.txt, and no tokenizer.json", SAVE)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    except Exception as error:
        # the tokenizers library raises bare ones for a file that it cannot read
        if settings.get("auto_map"):
            raise place.refusal(
                "tokenizer_config.json has auto_map: the tokenizer is code of its own"
                f" ({settings.get('tokenizer_class')})",
                "code that comes with a checkpoint is not run: take one with a tokenizer that"
                " transformers knows",
            ) from error
        raise place.refusal(f"its tokenizer does not load: {one_line(error)}", SAVE) from error
    if not getattr(tokenizer, "is_fast", False):
        raise place.refusal(
            f"its tokenizer ({type(tokenizer).__name__}) has no tokenizer.json form, which the ONNX"
            " variant needs",
            "take another model",
        )
    if not ids:
        raise place.refusal(f"its tokenizer makes no token of {PROBE!r}", SAVE)
    return tokenizer


def _require_template(tokenizer: Any, folder: Path, place: Place) -> None:

    template = tokenizer.chat_template
    if isinstance(template, dict) and "default" not in template:
        raise place.refusal(
            f"has the named chat templates {some(sorted(template))} only",
            "add the default one as chat_template.jinja",
        )
    if not template:
        if (folder / "chat_template.json").is_file():
            problem = (
                "its chat template stands in chat_template.json alone, which only multimodal"
                " processors read"
            )
            raise place.refusal(
                problem, "save the text under its key chat_template as chat_template.jinja"
            )
        raise place.refusal(
            "has no chat template, neither in tokenizer_config.json nor as chat_template.jinja, as"
            " base models have none",
            "take the -Instruct or -Chat version, or add the chat_template.jinja that it was"
            " trained with",
        )
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROBE}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # jinja's own, and whatever the template's expressions raise
        raise place.refusal(
            f"its chat template cannot be rendered: {one_line(error)}", "mend chat_template.jinja"
        ) from error
    if PROBE not in rendered:
        raise place.refusal(
            "its chat template leaves out what the user says", "mend chat_template.jinja"
        )


def _require_end(tokenizer: Any, folder: Path, place: Place, config: Mapping[str, Any]) -> None:

    generation = read_object(folder / "generation_config.json", place, needed=False)
    for file, source in (("config.json", config), ("generation_config.json", generation)):
        named = source.get("eos_token_id")
        if not all(
            isinstance(token, int)
            for token in (named if isinstance(named, list) else [] if named is None else [named])
        ):
            raise place.refusal(
                f"{file} has eos_token_id={named!r}, which is not a token id or a list of them",
                "write the token's id",
            )
    if all(
        end is None
        for end in (
            config.get("eos_token_id"),
            generation.get("eos_token_id"),
            tokenizer.eos_token_id,
        )
    ):
        raise place.refusal(
            "names no eos_token_id in config.json, generation_config.json or the tokenizer: no"
            " answer would end",
            "add it to generation_config.json",
        )


def _require_embeddings(tokenizer: Any, place: Place, vocabulary: int) -> None:
    """Every token that a prompt may hold has a row of the embedding.

    A special token past the end that the template does not use is warned about: published
    checkpoints have one (an image's, in the text-only sister of a multimodal model).
    """
    added = tokenizer.added_tokens_decoder
    past = {
        token: number for token, number in tokenizer.get_vocab().items() if number >= vocabulary
    }
    template = tokenizer.chat_template
    text = " ".join(map(str, template.values())) if isinstance(template, dict) else str(template)
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    used = sorted(
        token
        for token, number in past.items()
        if number not in added or not added[number].special or token in text or number in ends
    )
    if used:
        raise place.refusal(
            f"the tokenizer has ids up to {max(past.values())} ({some(used)}), config.json has"
            f" vocab_size={vocabulary}",
            "save the model again after resize_token_embeddings(len(tokenizer)), or the tokenizer"
            " that it was trained with",
        )
    if past:
        log.warning(
            "%s: no embedding for %s (vocab_size=%d): a prompt that holds it fails",
            place.value,
            some(sorted(past)),
            vocabulary,
        )
