"""Does what is served read and write text as the checkpoint's own tokenizer does? Token ids,
decoded text, rendered chats and end tokens.

transformers is the reference; what is compared is what a logged model uses: tokenizer.json, the
template and the limits of its folder.
"""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError
from mlflow.exceptions import MlflowException

from steps.snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from steps.wrappers.served.template import ChatTemplate
    from steps.wrappers.served.tokenizer import CheckpointTokenizer

TEXTS = (
    "",
    " ",
    "Hello, world!",
    "  two leading, two trailing  ",
    "tabs\tand\nnewlines\n\n\nand\r\nreturns",
    "don't can't we'll I'M",
    "1234567890 3.14159 1,000,000 ½ ²",
    "naïve café Ångström Straße",
    "e\u0301 combining, ﬁ ligature",
    "中文 日本語 한국어 العربية हिन्दी ไทย",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "zero\u200bwidth nbsp\u00a0em\u2003space",
    "def f(x):\n    return {'a': [x ** 2, \"b\"]}  # comment",
    "{{ template }} {% raw %} <b>&amp;</b> \\n \\u00e9",
    "<|system|>You are terse.<|end|><|user|>Hi<|end|><|assistant|>",
    "a" * 300,
    "▁ ▁▁ \ufeff \x01",
)
CONVERSATIONS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "What is the capital of France?"},),
    ({"role": "system", "content": "You are terse."}, {"role": "user", "content": "Hi"}),
    (
        {"role": "user", "content": '  Quote: "it\'s" \\ and\nnewlines 🙂\n'},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "{{ again }} <b>中文</b>"},
    ),
)
# sequences of random token ids, which hold every kind of broken character, and their length
RANDOM_ANSWERS, RANDOM_TOKENS = 64, 48


def check(checkpoint: Path, folder: Path) -> None:
    """Compare a folder that is to be served with its checkpoint.

    Args:
        checkpoint: folder that transformers reads.
        folder: an ONNX folder that was prepared for serving, or the checkpoint itself.

    Raises:
        SnapshotError: at the first difference, with both sides of it.
    """
    from transformers import AutoTokenizer

    from steps.wrappers.served.template import ChatTemplate
    from steps.wrappers.served.tokenizer import CheckpointTokenizer

    reference = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    backend = getattr(reference, "backend_tokenizer", None)
    if backend is None:
        raise SnapshotError(
            "model",
            type(reference).__name__,
            "its tokenizer is written in Python and has no tokenizer.json",
            "save it as a fast tokenizer",
        )
    if (folder / "genai_config.json").is_file():
        served = CheckpointTokenizer.of_folder(folder)
    else:  # the transformers variant reads the folder as transformers does
        served = CheckpointTokenizer(
            AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        )
    _check_token_ids(reference, served)
    _check_decoding(reference, served)
    _check_chat_template(reference, ChatTemplate(folder))
    if (folder / "genai_config.json").is_file():
        _check_eos(checkpoint, folder)


def _check_token_ids(reference: Any, served: "CheckpointTokenizer") -> None:
    special = " ".join(reference.all_special_tokens)
    for text in (*TEXTS, special, f"before{special}after"):
        pairs = [(reference.encode(text, add_special_tokens=False), served.encode(text))]
        if text and special not in text:
            pairs.append(
                (
                    reference.encode(text)[: len(served.beginning) + len(pairs[0][0])],
                    served.encode_prompt(text),
                )
            )
        for expected, actual in pairs:
            if expected != actual:
                at = _first_difference(expected, actual)
                sides = (
                    f"the checkpoint has {expected[at : at + 5]}, what is served"
                    f" {actual[at : at + 5]}"
                )
                _fail("token ids", f"{text!r} differs at token {at}: {sides}")


def _check_decoding(reference: Any, served: "CheckpointTokenizer") -> None:
    for ids in (
        *(reference.encode(text, add_special_tokens=False) for text in TEXTS),
        *_random_answers(len(reference)),
    ):
        decode = served.decoder()
        expected = reference.decode(ids, skip_special_tokens=True)
        actual = "".join(decode(token) for token in ids) + decode.finish()
        if expected != actual:
            at = _first_difference(expected, actual)
            sides = (
                f"the checkpoint has {expected[at : at + 20]!r}, what is served"
                f" {actual[at : at + 20]!r}"
            )
            _fail("decoded text", f"tokens {ids[:8]}… differ at character {at}: {sides}")


def _random_answers(vocabulary: int) -> Iterator[list[int]]:
    dice = random.Random(0)
    for _ in range(RANDOM_ANSWERS):
        yield [dice.randrange(vocabulary) for _ in range(RANDOM_TOKENS)]


def _check_chat_template(reference: Any, template: "ChatTemplate") -> None:
    if not reference.chat_template:
        cure = "add chat_template.jinja to the checkpoint"
        raise SnapshotError(
            "model.chat_template",
            type(reference).__name__,
            "the tokenizer has no chat template",
            cure,
        )
    compared = 0
    refusal = ""
    for conversation in CONVERSATIONS:
        try:
            expected = reference.apply_chat_template(
                list(conversation), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            refusal = str(error)
            continue  # a template that refuses a role refuses it for everybody
        try:
            actual = template.render(list(conversation))
        except MlflowException as error:
            _fail(
                "chat template",
                f"the checkpoint renders {len(conversation)} messages, what is served does not:"
                f" {error.message}",
            )
        compared += 1
        if expected != actual:
            at = _first_difference(expected, actual)
            _fail(
                "chat template",
                f"{len(conversation)} messages differ at character {at}: the checkpoint renders"
                f" {expected[at : at + 40]!r}, what is served {actual[at : at + 40]!r}",
            )
    if not compared:
        raise SnapshotError(
            "model.chat_template",
            type(reference).__name__,
            f"it renders no conversation, not even one question: {refusal}",
            "mend chat_template.jinja of the checkpoint",
        )


def _check_eos(checkpoint: Path, onnx_dir: Path) -> None:
    from steps.wrappers.served.limits import limits_of_checkpoint

    expected = set(limits_of_checkpoint(checkpoint).eos_token_ids)
    actual = set(
        json.loads((onnx_dir / "genai_config.json").read_text(encoding="utf-8"))["model"][
            "eos_token_id"
        ]
    )
    if expected != actual:
        _fail(
            "EOS ids",
            f"the checkpoint ends on {sorted(expected)}, the ONNX folder on {sorted(actual)}",
        )


def _first_difference(one: Iterable[object], other: Iterable[object]) -> int:
    pairs = list(zip(one, other, strict=False))
    return next((index for index, (left, right) in enumerate(pairs) if left != right), len(pairs))


def _fail(what: str, difference: str) -> NoReturn:
    cure = (
        "save the tokenizer anew with transformers"
        " (AutoTokenizer.from_pretrained(…).save_pretrained(…)) and fetch it again"
    )
    raise SnapshotError("model", what, difference, cure)
