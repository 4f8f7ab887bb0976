"""The meter of fidelity: on numbers worked out by hand, on texts, and on real weights in the slow
test.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steps.core.errors import ConfigError
from steps.evaluation import fidelity_texts, logits
from steps.evaluation.fidelity_comparison import Comparison, metrics_of, series_of

VOCABULARY = 7


def rows(count: int, seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(seed).normal(size=(count, VOCABULARY)).astype(np.float32)


def test_kl_of_two_coins() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 - ln 3 / 2."""
    reference, other = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.25, 0.75]]))
    found = logits.compare(reference, other, [0])
    assert found["kl"] == pytest.approx([math.log(2) - math.log(3) / 2])
    assert found["nll"] == []


def test_same_logits_are_no_distance_and_shifts_do_not_matter() -> None:
    reference = rows(50, 0)
    found = logits.compare(reference, reference + 100, [index % VOCABULARY for index in range(50)])
    assert max(found["kl"]) < 1e-6 and set(found["agree"]) == {1.0}
    assert found["nll"] == pytest.approx(found["nll_reference"], abs=1e-4)


def test_negative_log_likelihood_is_of_the_next_token() -> None:
    table = np.full((40, VOCABULARY), -50.0)
    ids = [(3 * index) % VOCABULARY for index in range(40)]
    for index in range(39):
        table[index, ids[index + 1]] = 0.0
    found = logits.compare(table, table, ids)
    # across the edge of a block of rows, too
    assert len(found["nll"]) == 39 and max(found["nll"]) < 1e-6


def test_rows_that_are_not_finite_are_as_far_as_can_be() -> None:
    reference, broken = rows(4, 5), rows(4, 5)
    broken[1, 2], broken[3, 0] = np.nan, np.inf
    found = logits.compare(reference, broken, [0, 1, 2, 3])
    assert found["kl"] == pytest.approx([0.0, logits.NOT_FINITE, 0.0, logits.NOT_FINITE], abs=1e-9)
    assert found["agree"] == [1.0, 0.0, 1.0, 0.0] and all(map(math.isfinite, found["nll"]))


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


def test_windows_take_texts_in_turn(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 100)
    (tmp_path / "b.txt").write_text("y" * 9000)
    files = fidelity_texts.texts(str(tmp_path))
    found = list(
        fidelity_texts.windows(
            files, lambda text: [ord(character) for character in text], [1], 33, 200
        )
    )
    assert [name for name, _ in found] == ["a", "b", "a", "b", "a", "b", "b"]
    assert sum(len(ids) for _, ids in found) <= 200 + 16
    assert all(ids[0] == 1 and len(ids) <= 33 for _, ids in found)


def test_windows_lose_no_token(tmp_path: Path) -> None:
    text = "".join(chr(97 + index % 26) for index in range(10_020))  # the last window holds 36
    (tmp_path / "a.txt").write_text(text)
    found = list(
        fidelity_texts.windows(
            fidelity_texts.texts(str(tmp_path)),
            lambda piece: [ord(each) for each in piece],
            [],
            64,
            10**6,
        )
    )
    assert "".join(chr(token) for _, ids in found for token in ids) == text


def test_a_rest_too_short_to_score_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * (64 * 3 + 15))
    found = list(
        fidelity_texts.windows(
            fidelity_texts.texts(str(tmp_path)),
            lambda piece: [ord(each) for each in piece],
            [],
            64,
            10**6,
        )
    )
    assert [len(ids) for _, ids in found] == [64, 64, 64]


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
    found = metrics_of(comparison)
    assert found["fidelity/kl_mean"] == pytest.approx(0.2)
    assert found["fidelity/top1_agreement"] == 0.75
    assert found["fidelity/perplexity"] == pytest.approx(4) and found[
        "fidelity/perplexity_difference"
    ] == pytest.approx(2)
    assert (
        found["fidelity/identical_continuations"] == 0.5
        and found["fidelity/prompt_agreement"] == 0.5
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
