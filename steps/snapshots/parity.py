"""Does an ONNX folder read and write text as its checkpoint does? Compares token ids, rendered chat template and EOS ids."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from steps.snapshots.errors import SnapshotError

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


def check(checkpoint: Path, onnx_dir: Path) -> None:
    """Compare the folder with the checkpoint.

    Args:
        checkpoint: folder that transformers reads.
        onnx_dir: folder that onnxruntime-genai reads.

    Raises:
        SnapshotError: at the first difference, with both sides of it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the package is imported
    import onnxruntime_genai as og
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    try:
        tokenizer = og.Tokenizer(str(onnx_dir))
    except RuntimeError as error:
        _fail("tokenizer", f"onnxruntime-genai cannot read it: {error}")
    _check_token_ids(reference, tokenizer)
    _check_chat_template(reference, tokenizer)
    _check_eos(checkpoint, onnx_dir, reference.eos_token_id)


def _check_token_ids(reference: Any, tokenizer: Any) -> None:
    special = " ".join(reference.all_special_tokens)
    for text in (*TEXTS, special, f"before{special}after"):
        # onnxruntime-genai adds no special tokens by itself: templates carry their own
        expected, found = reference.encode(text, add_special_tokens=False), [int(token) for token in tokenizer.encode(text)]
        if expected != found:
            at = _first_difference(expected, found)
            _fail(
                "token ids",
                f"{text!r} differs at token {at}: the checkpoint has {expected[at : at + 5]}, the ONNX folder {found[at : at + 5]}",
            )


def _check_chat_template(reference: Any, tokenizer: Any) -> None:
    from jinja2 import TemplateError

    if not reference.chat_template:
        raise SnapshotError(
            "model",
            reference.name_or_path.rsplit("/", 1)[-1],
            "its tokenizer has no chat template",
            "add chat_template.jinja to the checkpoint",
        )
    compared = 0
    refusal = ""
    for conversation in CONVERSATIONS:
        for prompt in (True, False):
            try:
                expected = reference.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=prompt)
            except TemplateError as error:
                refusal = str(error)
                continue  # a template that refuses a role refuses it for everybody
            try:
                found = tokenizer.apply_chat_template(json.dumps(conversation), add_generation_prompt=prompt)
            except RuntimeError as error:
                _fail("chat template", f"the checkpoint renders {len(conversation)} messages, onnxruntime-genai does not: {error}")
            compared += 1
            if expected != found:
                at = _first_difference(expected, found)
                _fail(
                    "chat template",
                    f"{len(conversation)} messages, generation prompt {prompt}, differ at character {at}: "
                    f"the checkpoint renders {expected[at : at + 40]!r}, the ONNX folder {found[at : at + 40]!r}",
                )

    if not compared:
        raise SnapshotError(
            "model",
            reference.name_or_path.rsplit("/", 1)[-1],
            f"its chat template renders no conversation, not even one question: {refusal}",
            "mend chat_template.jinja of the checkpoint",
        )


def _check_eos(checkpoint: Path, onnx_dir: Path, turn_end: int | None) -> None:
    expected = eos_ids(checkpoint) | ({turn_end} if turn_end is not None else set())
    config = json.loads((onnx_dir / "genai_config.json").read_text(encoding="utf-8"))
    found = _ids(config["model"].get("eos_token_id"))
    if expected != found:
        _fail("EOS ids", f"the checkpoint ends on {sorted(expected)}, the ONNX folder on {sorted(found)}")


def eos_ids(checkpoint: Path) -> set[int]:
    """Ids that end a text: of ``generation_config.json`` where it names them, else of ``config.json``, as `generate` chooses."""
    for name in ("generation_config.json", "config.json"):
        path = checkpoint / name
        if path.is_file() and (ids := _ids(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))):
            return ids
    return set()


def _ids(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)


def _first_difference(one: Iterable[object], other: Iterable[object]) -> int:
    pairs = list(zip(one, other, strict=False))
    return next((index for index, (left, right) in enumerate(pairs) if left != right), len(pairs))


def _fail(what: str, difference: str) -> NoReturn:
    raise SnapshotError(
        "onnx",
        what,
        difference,
        "build the ONNX folder from this checkpoint (onnx.prebuilt=false), or pin the revision that it was built from",
    )
