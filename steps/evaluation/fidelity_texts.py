"""What fidelity is measured on: windows of texts, and conversations."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from steps.core.errors import ConfigError

TEXTS = Path(__file__).with_name("texts")
PIECE = 4000  # characters tokenised at once
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Write a short story about a lighthouse keeper."}],
    [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    [
        {"role": "user", "content": "Name three fruits."},
        {"role": "assistant", "content": "Apple, pear and plum."},
        {"role": "user", "content": "Which of them is the sweetest?"},
    ],
    [{"role": "user", "content": "Explain how to boil an egg.\n\nUse a list."}],
    [{"role": "user", "content": "Übersetze ins Englische: Guten Morgen, wie geht es dir?"}],
    [{"role": "user", "content": "def add(a, b):\n    return"}],
    [{"role": "user", "content": "Give me advice for a first day at work."}],
)


def texts(folder: str | None) -> list[Path]:
    """Text files to score, in the order of their names.

    Raises:
        ConfigError: the folder has none.
    """
    root = Path(folder).expanduser() if folder else TEXTS
    found = sorted(root.glob("*.txt"))
    if not found:
        raise ConfigError(
            "evaluate.fidelity.texts", str(root), "a folder with at least one *.txt file"
        )
    return found


def windows(
    files: Sequence[Path],
    tokenize: Callable[[str], list[int]],
    bos: list[int],
    window: int,
    tokens: int,
) -> Iterator[tuple[str, list[int]]]:
    """Windows of token ids, taken in turn from each text so that a short measurement sees every
    language.

    Args:
        files: texts; each is read piece by piece.
        tokenize: token ids of a piece.
        bos: put in front of each window, where the tokenizer does so.
        window: tokens of one window.
        tokens: about how many in all; the last window may be cut, never below 16 tokens.
    """

    def of(file: Path) -> Iterator[list[int]]:
        left: list[int] = []
        with file.open(encoding="utf-8") as text:
            while piece := text.read(PIECE):
                left += tokenize(piece)
                while len(left) >= window - len(bos):
                    yield bos + left[: window - len(bos)]
                    left = left[window - len(bos) :]
        if len(left) >= 16:
            yield bos + left

    queues = {file.stem: of(file) for file in files}
    done = 0
    while queues and done < tokens:
        for name in list(queues):
            ids = next(queues[name], None)
            if ids is None:
                del queues[name]
                continue
            ids = ids[: max(16, tokens - done)]
            yield name, ids
            done += len(ids)
            if done >= tokens:
                return


def long_text(
    files: Sequence[Path], tokenize: Callable[[str], list[int]], bos: list[int], tokens: int
) -> list[int]:
    """Token ids of one text of this length: the files one after another, as often as it takes."""
    ids = list(bos)
    while True:
        for file in files:
            with file.open(encoding="utf-8") as text:
                while piece := text.read(PIECE):
                    ids += tokenize(piece)
                    if len(ids) >= tokens:
                        return ids[:tokens]
