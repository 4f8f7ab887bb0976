"""The served tokenizer beside transformers' decoding, on small vocabularies of both kinds."""

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.pre_tokenizers import ByteLevel

from steps.wrappers.served.tokenizer import WINDOW, CheckpointTokenizer

TEXTS = ("Hello world", " two  spaces ", "héé 日本 🙂", "a▁b", "1234 ½", "x" * 50, "<s> hi </s>")


def byte_fallback() -> Tokenizer:
    """A vocabulary as Llama 2's: spaces are ▁, one in front, the rest spelled in bytes."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"Helowrdxabcht▁"[:-1],
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<s>", "</s>")])
    return tokenizer


def byte_level() -> Tokenizer:
    """A vocabulary as GPT-2's: every byte is a character of its own alphabet."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


@pytest.fixture(params=[byte_fallback, byte_level], ids=["byte fallback", "byte level"])
def made(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer: Tokenizer = request.param()
    return tokenizer


def reference(tokenizer: Tokenizer) -> Any:
    """transformers around the same vocabulary."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def streamed(
    served: CheckpointTokenizer, ids: list[int], keep: frozenset[str] = frozenset()
) -> str:
    decode = served.decoder(keep)
    return "".join(decode(token) for token in ids) + decode.finish()


def test_random_answers_stream_to_what_transformers_decodes(made: Tokenizer) -> None:
    """Random ids hold every kind of broken character; the longest are decoded in many windows."""
    served, theirs, dice = CheckpointTokenizer(made), reference(made), random.Random(3)
    size = made.get_vocab_size()
    for number in range(400):
        ids = [dice.randrange(size) for _ in range(1 + number)]
        assert streamed(served, ids) == theirs.decode(ids, skip_special_tokens=True), ids
    assert number > 4 * WINDOW


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_encoded_as_transformers_does(made: Tokenizer, text: str) -> None:
    served, theirs = CheckpointTokenizer(made), reference(made)
    assert served.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert streamed(served, served.encode(text)) == theirs.decode(
        served.encode(text), skip_special_tokens=True
    )


def test_valid_text_after_a_broken_character_is_shown_as_soon_as_it_is_certain() -> None:
    tokenizer = byte_level()
    served = CheckpointTokenizer(tokenizer)
    # the first of three bytes alone
    ids = [*served.encode("a"), served.encode("日")[0], *served.encode("b")]
    decode = served.decoder()
    assert [decode(token) for token in ids] == ["a", "", "\ufffdb"]


def test_a_run_of_bytes_is_held_until_it_ends() -> None:
    """The library reads such a run whole: one bad byte makes all of them bad."""
    served = CheckpointTokenizer(byte_fallback())
    whole = served.encode("日")
    decode = served.decoder()
    assert [decode(token) for token in [*whole[-3:], *served.encode("l")[-1:]]] == [
        "",
        "",
        "",
        "日l",
    ]


def test_bos_is_put_in_front_of_a_prompt_once() -> None:
    served = CheckpointTokenizer(byte_fallback())
    assert served.beginning == (1,)
    plain = served.encode("Hello")
    assert served.encode_prompt("Hello") == [1, *plain]
    assert (
        served.encode_prompt("<s>Hello")[:2] != [1, 1] and served.encode_prompt("<s>Hello")[0] == 1
    )
    assert CheckpointTokenizer(byte_level()).encode_prompt("Hello") == CheckpointTokenizer(
        byte_level()
    ).encode("Hello")


def test_an_end_token_that_the_tokenizer_adds_is_not_in_a_prompt() -> None:
    tokenizer = byte_fallback()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    served = CheckpointTokenizer(tokenizer)
    assert served.encode_prompt("Hello") == [1, *served.encode("Hello")]


def test_a_limit_that_was_saved_with_the_tokenizer_cuts_no_prompt(
    tmp_path: Path, made: Tokenizer
) -> None:
    made.enable_truncation(4)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    served = CheckpointTokenizer.of_folder(tmp_path)
    assert 4 < len(served.encode("Hello world")) < 64


def test_segments_join_without_a_space_in_front_of_each() -> None:
    served = CheckpointTokenizer(byte_fallback())
    ids = served.encode_segments(["Hel", "lo <", "s> wo</s>ld"])
    assert ids == [*served.encode("Hello <"), *served.encode("xs> wo")[2:], 2, *served.encode("ld")]
    assert served.encode("Hello") == served.encode_segments(["Hello"])  # the tokenizer is as it was


def test_tokens_that_are_kept_are_shown(made: Tokenizer) -> None:
    served = CheckpointTokenizer(made)
    ids = [*served.encode("Hello"), *served.encode("</s>")[-1:], *served.encode("x")]
    assert "</s>" not in streamed(served, ids)
    assert streamed(served, ids, frozenset({"</s>"})).startswith("Hello</s>")


def test_a_folder_is_read(tmp_path: Path, made: Tokenizer) -> None:
    made.save(str(tmp_path / "tokenizer.json"))
    assert CheckpointTokenizer.of_folder(tmp_path).encode("Hello") == CheckpointTokenizer(
        made
    ).encode("Hello")
