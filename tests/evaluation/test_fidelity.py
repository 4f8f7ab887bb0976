"""The meter of fidelity: on numbers worked out by hand, on texts, and on real weights in the slow
test.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steps.core.errors import ConfigError
from steps.evaluation import fidelity, fidelity_texts, logits
from steps.evaluation.fidelity_comparison import Comparison, metrics_of, series_of

VOCABULARY = 7


def rows(count: int, seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(seed).normal(size=(count, VOCABULARY)).astype(np.float32)


def test_kl_of_two_coins() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 - ln 3 / 2."""
    reference, other = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.25, 0.75]]))
    values = logits.compare(reference, other, [0])
    assert values["kl"] == pytest.approx([math.log(2) - math.log(3) / 2])
    assert values["nll"] == []


def test_same_logits_are_no_distance_and_shifts_do_not_matter() -> None:
    reference = rows(50, 0)
    values = logits.compare(reference, reference + 100, [index % VOCABULARY for index in range(50)])
    assert max(values["kl"]) < 1e-6 and set(values["agree"]) == {1.0}
    assert values["nll"] == pytest.approx(values["nll_reference"], abs=1e-4)


def test_negative_log_likelihood_is_of_the_next_token() -> None:
    table = np.full((40, VOCABULARY), -50.0)
    ids = [(3 * index) % VOCABULARY for index in range(40)]
    for index in range(39):
        table[index, ids[index + 1]] = 0.0
    values = logits.compare(table, table, ids)
    # across the edge of a block of rows, too
    assert len(values["nll"]) == 39 and max(values["nll"]) < 1e-6


def test_rows_that_are_not_finite_are_as_far_as_can_be() -> None:
    reference, broken = rows(4, 5), rows(4, 5)
    broken[1, 2], broken[3, 0] = np.nan, np.inf
    values = logits.compare(reference, broken, [0, 1, 2, 3])
    assert values["kl"] == pytest.approx([0.0, logits.NOT_FINITE, 0.0, logits.NOT_FINITE], abs=1e-9)
    assert values["agree"] == [1.0, 0.0, 1.0, 0.0] and all(map(math.isfinite, values["nll"]))


def test_padding_columns_are_left_out() -> None:
    reference = rows(5, 1)
    padded = np.concatenate([reference, np.full((5, 3), 9.0, np.float32)], axis=1)
    assert max(logits.compare(reference, padded, [0, 1, 2, 3, 4])["kl"]) < 1e-9


def test_kl_against_scipy() -> None:
    from scipy.special import softmax
    from scipy.stats import entropy

    reference, other = rows(64, 2), rows(64, 3)
    wanted = entropy(
        softmax(reference.astype(float), axis=1), softmax(other.astype(float), axis=1), axis=1
    )
    assert logits.compare(reference, other, [0] * 64)["kl"] == pytest.approx(wanted.tolist())


def test_the_reference_computes_one_window_ahead() -> None:
    """The next one is made while one is compared, and none after it."""
    made = [threading.Event() for _ in range(4)]

    def windows() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    for number in fidelity._one_ahead(windows()):
        assert all(event.wait(10) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])
    assert number == 3


def test_a_reference_that_fails_is_heard_when_its_window_is_due() -> None:
    def windows() -> Iterator[int]:
        yield 0
        raise OSError("no space left")

    taken = fidelity._one_ahead(windows())
    assert next(taken) == 0
    with pytest.raises(OSError, match="no space left"):
        next(taken)


def test_windows_take_texts_in_turn(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 100)
    (tmp_path / "b.txt").write_text("y" * 9000)
    files = fidelity_texts.texts(str(tmp_path))
    taken = list(
        fidelity_texts.windows(
            files, lambda text: [ord(character) for character in text], [1], 33, 200
        )
    )
    assert [name for name, _ in taken] == ["a", "b", "a", "b", "a", "b", "b"]
    assert sum(len(ids) for _, ids in taken) <= 200 + 16
    assert all(ids[0] == 1 and len(ids) <= 33 for _, ids in taken)


def test_windows_lose_no_token(tmp_path: Path) -> None:
    text = "".join(chr(97 + index % 26) for index in range(10_020))  # the last window holds 36
    (tmp_path / "a.txt").write_text(text)
    taken = list(
        fidelity_texts.windows(
            fidelity_texts.texts(str(tmp_path)),
            lambda piece: [ord(letter) for letter in piece],
            [],
            64,
            10**6,
        )
    )
    assert "".join(chr(token) for _, ids in taken for token in ids) == text


def test_a_rest_too_short_to_score_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * (64 * 3 + 15))
    taken = list(
        fidelity_texts.windows(
            fidelity_texts.texts(str(tmp_path)),
            lambda piece: [ord(letter) for letter in piece],
            [],
            64,
            10**6,
        )
    )
    assert [len(ids) for _, ids in taken] == [64, 64, 64]


def test_no_texts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.fidelity\.texts"):
        fidelity_texts.texts(str(tmp_path))


def test_metrics_of_a_comparison() -> None:
    comparison = Comparison(
        kl=[0.0, 0.2, 0.4, 0.2],
        agree=[1, 1, 0, 1],
        nll=[math.log(4)] * 3,
        nll_reference=[math.log(2)] * 3,
        spans=[("en", 0, 2), ("de", 2, 4)],
        divergence=[8, 2],
        continued=8,
        prompts_equal=[True, False],
        prompt_lengths=[9, 12],
        windows=2,
    )
    figures = metrics_of(comparison)
    assert figures["fidelity/kl_mean"] == pytest.approx(0.2)
    assert figures["fidelity/top1_agreement"] == 0.75
    assert figures["fidelity/perplexity"] == pytest.approx(4) and figures[
        "fidelity/perplexity_difference"
    ] == pytest.approx(2)
    assert (
        figures["fidelity/identical_continuations"] == 0.5
        and figures["fidelity/prompt_agreement"] == 0.5
    )
    series = series_of(comparison)
    assert (
        series["by_text"]["de"]["kl_mean"] == pytest.approx(0.3) and len(series["quantiles"]) == 101
    )
    assert metrics_of(Comparison()) == {}
    # a mean over what is left would look like a whole one
    assert metrics_of(replace(comparison, windows=3)) == {}


def test_shipped_texts_are_many_languages() -> None:
    names = {file.stem.split("_")[0] for file in fidelity_texts.texts(None)}
    assert {"en", "de", "fr", "es", "code", "json"} <= names
    assert sum(len(file.read_text()) for file in fidelity_texts.texts(None)) > 60_000
