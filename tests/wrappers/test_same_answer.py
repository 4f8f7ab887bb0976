"""Many prompts: the greedy text is the same with the prompt kept or not, alone or in
company, on the shipped int8 build and in float32.
"""

import random
import threading
from typing import Any

import pytest

from tests.wrappers.subjects import Folders, Open, say, text

TOPICS = ("foxes", "the tides", "old mills", "a lighthouse", "bread", "copper", "maps", "bridges")
ASKED = ("Why", "Where", "Since when", "Who says that", "What follows if")
SHARED = "Here is what we know so far. " * 30  # more than one piece of a prompt


def questions(count: int) -> list[dict[str, Any]]:
    """Of 10 to 400 words, some of them beginning alike, all different."""
    dice = random.Random(11)
    rows = []
    for number in range(count):
        topic = dice.choice(TOPICS)
        words = " ".join(
            dice.choices((*TOPICS, *ASKED, "and", "but", "often"), k=dice.randrange(60))
        )
        begin = SHARED if number % 3 == 0 else ""
        content = f"{begin}Note {number}: {words}. {dice.choice(ASKED)} is it about {topic}?"
        rows.append(say(content, max_tokens=dice.randrange(4, 12)))
    return rows


def together(model: Any, rows: list[dict[str, Any]], clients: int) -> list[str]:
    """Asked by clients that each send their next question when the last was answered."""
    answers: list[str] = [""] * len(rows)
    left = iter(range(len(rows)))
    lock = threading.Lock()

    def ask() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            answers[number] = text(model.predict(None, [rows[number]])[0])

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "count"),
    [
        ("shipped", 30),
        ("fp32", 30),
        pytest.param("shipped", 200, marks=pytest.mark.volume),
        pytest.param("fp32", 200, marks=pytest.mark.volume),
    ],
)
def test_one_answer_to_a_question(smollm: Folders, open_onnx: Open, build: str, count: int) -> None:
    rows = questions(count)
    folder = smollm.shipped() if build == "shipped" else smollm.onnx(build)
    cold = open_onnx(folder, prefix_cache_bytes=0, max_batch_size=1)
    alone = [text(cold.predict(None, [row])[0]) for row in rows]
    cold.close()
    warm = open_onnx(folder)
    assert together(warm, rows, 8) == alone
    kept = [warm.predict(None, [row])[0] for row in rows[-20:]]
    warm.close()
    assert [text(answer) for answer in kept] == alone[-20:]
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in kept]
    assert sum(count > 0 for count in cached) > 5
    assert len(set(alone)) > count / 4
