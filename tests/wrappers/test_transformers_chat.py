"""The transformers variant's own loop says what transformers says, row by row."""

import re
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from tests.wrappers.subjects import NAME, Folders, Open, say, text


@pytest.fixture(scope="module")
def model(tiny: Folders, open_checkpoint: Open) -> Any:
    """The tiny checkpoint in the served class."""
    return open_checkpoint(tiny.checkpoint)


def test_greedy_tokens_equal_generate(model: Any, tiny: Folders) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny.checkpoint),
        AutoTokenizer.from_pretrained(tiny.checkpoint),
    )
    for content in ("Hello", "Tell me about foxes", "é🙂日本"):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False
        )
        out = reference.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[
            0, len(ids) :
        ]
        assert text(model.predict(None, say(content, max_tokens=12))[0]) == tokenizer.decode(
            out, skip_special_tokens=True
        )


def test_both_contracts_and_rows_of_their_own(model: Any) -> None:
    rows = [
        say("Hello", max_tokens=2),
        {"prompt": "One, two,", "max_tokens": 3},
        say("Hello", max_tokens=5),
    ]
    chat, prompt, longer = model.predict(None, rows)
    assert (chat["usage"]["completion_tokens"], longer["usage"]["completion_tokens"]) == (2, 5)
    assert isinstance(prompt, str)
    assert chat["model"] == NAME


def test_seeds_do_not_touch_the_global_stream(model: Any) -> None:
    import torch

    row = say("Hello", temperature=1.0, seed=3, max_tokens=8)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = text(model.predict(None, row)[0])
    assert torch.equal(torch.rand(1), expected)
    assert text(model.predict(None, row)[0]) == first
    assert len({text(model.predict(None, {**row, "seed": seed})[0]) for seed in range(4)}) > 1


@pytest.mark.parametrize(
    "settings",
    [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0}, {"temperature": 1e-40}],
    ids=["top_k", "top_p", "temperature", "next to none"],
)
def test_what_amounts_to_greedy_is_greedy(model: Any, settings: dict[str, Any]) -> None:
    warm = {"temperature": 1.0, "seed": 1, **settings}
    assert text(model.predict(None, say("Hello", **warm))[0]) == text(
        model.predict(None, say("Hello"))[0]
    )


def test_penalties_are_taken_from_the_scores(model: Any, tiny: Folders) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny.checkpoint),
        AutoTokenizer.from_pretrained(tiny.checkpoint),
    )
    ids = tokenizer.encode("One, two,")
    made: list[int] = []
    for _ in range(12):
        with torch.no_grad():
            scores = reference(torch.tensor([ids + made])).logits[0, -1].clone()
        for token in set(made):
            # negative penalties: what was said is said again
            scores[token] += 2.0 + 2.0 * made.count(token)
        made.append(int(scores.argmax()))
    settings = {"frequency_penalty": -2.0, "presence_penalty": -2.0}
    answer = model.predict(None, {"prompt": "One, two,", "max_tokens": 12, **settings})[0]
    assert answer == tokenizer.decode(made, skip_special_tokens=True)


def test_repetition_penalty_and_min_tokens(model: Any) -> None:
    plain = text(model.predict(None, say("Hello"))[0])
    assert text(model.predict(None, say("Hello", repetition_penalty=0.05))[0]) != plain
    assert (
        model.predict(None, say("Hello", max_tokens=20, min_tokens=20))[0]["usage"][
            "completion_tokens"
        ]
        == 20
    )


def test_a_stream_joins_to_the_whole_and_can_be_left(model: Any) -> None:
    row = say("Tell me about foxes", max_tokens=12)
    chunks = list(model.predict_stream(None, row))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text(
        model.predict(None, row)[0]
    )
    stream = model.predict_stream(None, {**row, "max_tokens": 1500})
    next(stream)
    stream.close()
    assert text(model.predict(None, row)[0])


def test_an_answer_that_fails_leaves_the_engine_alive(
    tiny: Folders, open_checkpoint: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = open_checkpoint(tiny.checkpoint)
    backend, begin = own.scheduler().backend, own.scheduler().backend.begin

    def choosy(job: Any) -> Any:
        if job.request.max_tokens == 3:
            raise RuntimeError("out of memory")
        return begin(job)

    monkeypatch.setattr(backend, "begin", choosy)
    with pytest.raises(
        MlflowException, match="could not finish this answer: out of memory"
    ) as caught:
        own.predict(None, [say("Hello", max_tokens=2), say("Hello", max_tokens=3)])
    assert caught.value.get_http_status_code() == 500
    assert own.predict(None, say("Hello", max_tokens=2))
    assert own.scheduler().backend is backend


def test_a_missing_device_is_a_refusal(tiny: Folders, open_checkpoint: Open) -> None:
    with pytest.raises(MlflowException, match="execution_provider='nonsense'") as caught:
        open_checkpoint(tiny.checkpoint, execution_provider="nonsense")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_an_answer_is_held_to_a_grammar(model: Any) -> None:
    digits = {"type": "regex", "regex": "[0-9]{3}-[a-f]{2}"}
    for settings in ({}, {"temperature": 1.0, "seed": 5}, {"repetition_penalty": 1.3}):
        [answer] = model.predict(None, say("Hello", response_format=digits, **settings))
        assert re.fullmatch("[0-9]{3}-[a-f]{2}", text(answer))
        assert answer["choices"][0]["finish_reason"] == "stop"
    [cut] = model.predict(None, say("Hello", max_tokens=2, response_format=digits))
    assert cut["choices"][0]["finish_reason"] == "length"


def test_a_grammar_that_fails_is_the_callers_and_leaves_its_neighbours(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"type": "regex", "regex": "(a?){500}a{500}"}
    with pytest.raises(MlflowException, match="expected a grammar that can be compiled") as caught:
        model.predict(None, say("Hello", response_format=broken))
    assert caught.value.get_http_status_code() == 400
    monkeypatch.setattr(model.trial, "require", lambda _: None)  # it fails as it generates now
    alone = text(model.predict(None, say("Hello", max_tokens=40))[0])
    stream = model.predict_stream(None, say("Hello", max_tokens=40))
    beside = [next(stream)]
    with pytest.raises(MlflowException, match="expected a grammar that can be compiled") as caught:
        model.predict(None, say("Hello", max_tokens=400, response_format=broken))
    assert caught.value.get_http_status_code() == 400
    beside += stream
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in beside) == alone


def test_an_overlong_prompt_says_what_fits(model: Any) -> None:
    with pytest.raises(MlflowException, match="expected at most 2047 tokens"):
        model.predict(None, {"prompt": "word " * 3000})
