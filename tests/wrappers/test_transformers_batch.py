"""The transformers variant answers several at once: rows join and leave between steps, and each
says what it says alone.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.wrappers.subjects import Folders, Open, say, text

WORDS = ["river", "stone", "light", "under", "seven", "paper", "often", "green", "winter", "glass"]


@pytest.fixture(scope="module")
def model(tiny: Folders, open_checkpoint: Open) -> Any:
    """The tiny checkpoint in the served class."""
    return open_checkpoint(tiny.checkpoint)


@pytest.fixture(scope="module")
def embedded(smollm: Folders, open_checkpoint: Open) -> Any:
    """The embedded checkpoint in the served class."""
    return open_checkpoint(smollm.checkpoint)


def row_of(number: int) -> dict[str, Any]:
    """Rows of different prompts, lengths and settings."""
    settings: list[dict[str, Any]] = [
        {},
        {"temperature": 0.9, "seed": number},
        {"temperature": 1.3, "seed": number, "top_k": 20, "top_p": 0.9},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 1.0, "min_tokens": 3},
        {"response_format": {"type": "regex", "regex": "[a-f]{2}[0-9]{1,9}"}},
    ]
    content = " ".join(WORDS[(number * step) % 10] for step in range(1, 2 + 7 * (number % 5)))
    return say(content, max_tokens=4 + 5 * (number % 4), **settings[number % len(settings)])


def drained(stream: Iterator[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in stream)


def test_a_batch_says_what_its_rows_say_alone(model: Any) -> None:
    rows = [row_of(number) for number in range(24)]
    alone = [text(model.predict(None, row)[0]) for row in rows]
    assert len(set(alone)) > 16
    assert [text(answer) for answer in model.predict(None, rows)] == alone


def test_rows_join_and_leave_a_running_batch(model: Any) -> None:
    alone = [drained(model.predict_stream(None, row_of(number))) for number in range(12)]
    long = say("Tell me about foxes", max_tokens=200)
    expected = drained(model.predict_stream(None, long))
    running = model.predict_stream(None, long)
    beside = [next(running) for _ in range(4)]
    for number in range(12):  # comes, goes, or is left in the middle, while the long one runs
        stream = model.predict_stream(None, row_of(number))
        if number % 3 == 2:
            next(stream)
            stream.close()
        else:
            assert drained(stream) == alone[number]
        beside.append(next(running))
    assert drained(iter([*beside, *running])) == expected
    assert not model.scheduler().backend.busy()


def test_eight_answers_take_the_steps_of_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = model.scheduler().backend
    sizes: list[int] = []
    decode = backend._decode_batch

    def counted() -> Any:
        sizes.append(len(backend._batch))
        return decode()

    monkeypatch.setattr(backend, "_decode_batch", counted)
    model.predict(None, [say(f"Hello {number}", max_tokens=12) for number in range(8)])
    assert max(sizes) == 8
    assert len(sizes) < 24  # one by one they would be 88


def test_no_more_rows_than_max_batch_size(
    tiny: Folders, open_checkpoint: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = open_checkpoint(tiny.checkpoint, max_batch_size=3)
    backend = own.scheduler().backend
    sizes: list[int] = []
    decode = backend._decode_batch

    def counted() -> Any:
        sizes.append(len(backend._batch))
        return decode()

    monkeypatch.setattr(backend, "_decode_batch", counted)
    answers = own.predict(None, [say(f"Hello {number}", max_tokens=9) for number in range(10)])
    assert len(answers) == 10
    assert max(sizes) == 3
    assert not backend.busy()
    assert not backend._cache._keys  # memory is given back


def test_a_prompt_in_pieces_is_answered_as_generate_does(model: Any, tiny: Folders) -> None:
    """Computed 256 tokens at a time, with others beside it, over a cache that has to grow."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(tiny.checkpoint)
    for words in (255, 256, 257, 700):
        prompt = " ".join(WORDS[number * number % 10] for number in range(words))
        ids = model.tokenizer.encode_prompt(prompt)
        assert len(ids) >= words
        out = reference.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
        expected = model.tokenizer.decode(out[0, len(ids) :].tolist())
        row = {"prompt": prompt, "max_tokens": 8}
        short = {"prompt": "One, two,", "max_tokens": 16}
        alone = model.predict(None, short)[0]
        assert model.predict(None, row) == [expected]
        assert model.predict(None, [short, row, short]) == [alone, expected, alone]


def test_a_long_prompt_is_not_held_back_and_holds_nobody_back(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = model.scheduler().backend
    pieces: list[int] = []
    compute = backend._compute

    def counted(row: Any) -> Any:
        pieces.append(len(row.job.ids))
        return compute(row)

    monkeypatch.setattr(backend, "_compute", counted)
    long = {"prompt": "word " * 1000, "max_tokens": 1}
    shorts = [{"prompt": "word " * 200, "max_tokens": 1} for _ in range(4)]
    model.predict(None, [long, *shorts])
    # the long one takes four turns
    assert [size > 999 for size in pieces] == [True, *[False] * 4, True, True, True]


def test_greedy_text_of_the_embedded_model_is_the_same_in_company(embedded: Any) -> None:
    rows = [
        say(f"Write a sentence about a {first} and a {second}.", max_tokens=12)
        for first in WORDS[:4]
        for second in WORDS[4:8]
    ]
    alone = [text(embedded.predict(None, row)[0]) for row in rows]
    assert [text(answer) for answer in embedded.predict(None, rows)] == alone


def test_a_model_that_cannot_be_batched_is_answered_one_by_one(
    tiny: Folders, open_checkpoint: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps.wrappers.served import transformers_backend

    together = open_checkpoint(tiny.checkpoint)
    monkeypatch.setattr(transformers_backend, "windows_of", lambda *_: None)
    one_by_one = open_checkpoint(tiny.checkpoint)
    rows = [row_of(number) for number in range(12)]
    expected = [text(answer) for answer in together.predict(None, rows)]
    assert [text(answer) for answer in one_by_one.predict(None, rows)] == expected
    assert one_by_one.scheduler().backend._cache is None


@pytest.mark.parametrize(
    ("name", "settings", "together"),
    [
        ("llama", {}, True),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
        ("mistral", {"sliding_window": 16}, True),
        ("gemma2", {"sliding_window": 16, "head_dim": 16}, True),
        ("bloom", {}, False),
        ("falcon", {"alibi": True}, False),
        ("mamba", {}, False),
    ],
)
def test_what_is_decoded_together_is_decided_by_the_config(
    name: str, settings: dict[str, Any], together: bool
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    from steps.wrappers.served.transformers_rows import windows_of

    small = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    config = AutoConfig.for_model(name, **small, **settings)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=None)
    windows = windows_of(made, DynamicCache(config=config).layers)
    assert (windows is not None) == together
