"""Every family is fetched, built and compared with its checkpoint; its end tokens are the union of
what its files name.
"""

import shutil
from typing import Any

import pytest

from steps.snapshots import onnx_build, parity
from steps.wrappers.served.limits import limits_of_checkpoint
from tests.families.asking import (
    NEW_TOKENS,
    VARIANTS,
    asked,
    differing,
    prompts,
    right,
    said,
    talked,
)
from tests.families.subject import FP32, Subject, rows

ENDING, LONG = 24, 20  # prompts, and tokens their answers may have: most of them end before


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_fetch(subject: Subject) -> None:
    """The snapshot holds the files that were brought, under their names."""
    brought = {file.name: file.read_bytes() for file in subject.source.iterdir()}
    assert {entry.path for entry in subject.snapshot.files} == brought.keys()
    assert {file.name: file.read_bytes() for file in subject.checkpoint.iterdir()} == brought


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_build(subject: Subject) -> None:
    """The model builder makes a graph that loads and decodes, as `onnx_build.build` tries."""
    assert (subject.onnx / "genai_config.json").is_file() and (
        subject.onnx / "model.onnx"
    ).is_file()


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_parity(subject: Subject) -> None:
    """The comparison that stands before logging finds no difference."""
    parity.check(subject.checkpoint, subject.onnx)


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_ends(subject: Subject, record_property: Any) -> None:
    """Both variants end on every token that one of the three files names, and on none else; answers
    end there as `generate`'s do.
    """
    reference, given = subject.reference, prompts(seed=3, count=ENDING)
    expected = reference.answers([reference.prompt_ids(prompt) for prompt in given], LONG)
    conversations = [[{"role": "user", "content": prompt}] for prompt in given[:8]]
    turns = [right(subject, messages, LONG) for messages in conversations]
    stopped = sum(reason == "stop" for _, reason in expected)
    assert stopped > 1, "the model hardly ever ends, which shows nothing"
    for variant in VARIANTS:
        served = subject.served(variant)
        assert (
            served.read_limits(
                subject.onnx if variant == "onnx" else subject.checkpoint
            ).eos_token_ids
            == subject.family.ends
        )
        assert served.limits.eos_token_ids == subject.family.ends
        answers = served.predict(None, [asked(prompt, LONG) for prompt in given])
        assert differing(given, [answer for answer, _ in expected], answers) == [], variant
        assert [
            said(answer)
            for answer in served.predict(
                None, [talked(messages, LONG) for messages in conversations]
            )
        ] == turns, variant
    record_property("cell", f"{stopped} of {ENDING} ended")


@pytest.mark.parametrize("subject", rows(saved_anew=True), indirect=True)
def test_build_of_what_transformers_5_saves(subject: Subject) -> None:
    """transformers 5 writes the same facts under other names; the build answers the same."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    anew = subject.folder / "anew"
    AutoModelForCausalLM.from_pretrained(subject.source).save_pretrained(anew)
    AutoTokenizer.from_pretrained(subject.source).save_pretrained(anew)
    assert (anew / "config.json").read_text() != (subject.source / "config.json").read_text()
    folder = onnx_build.build(anew, FP32, subject.store, f"{subject.family.name}, saved anew")
    parity.check(anew, folder)
    before, after = limits_of_checkpoint(subject.checkpoint), limits_of_checkpoint(anew)
    assert (after.context_length, after.borders, after.eos_token_ids) == (
        before.context_length,
        before.borders,
        before.eos_token_ids,
    )
    reference, given = subject.reference, prompts(seed=4, count=16)
    expected = [
        answer
        for answer, _ in reference.answers(
            [reference.prompt_ids(prompt) for prompt in given], NEW_TOKENS
        )
    ]
    served = subject.open_onnx(folder)
    assert (
        differing(given, expected, served.predict(None, [asked(prompt) for prompt in given])) == []
    )
    served.close()
    shutil.rmtree(anew)
