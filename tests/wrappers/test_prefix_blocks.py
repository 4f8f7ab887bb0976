"""Which pieces of prompts are kept, and which go."""

import numpy as np

from steps.wrappers.served.prefix_blocks import PrefixBlocks, chain

PIECE, BLOCK = 4, [np.zeros(100, np.float32)]


def names_of(first: int, count: int) -> list[bytes]:
    return chain(list(range(first, first + count * PIECE)), PIECE, long=False)


def keep(blocks: PrefixBlocks, names: list[bytes]) -> int:
    """Keep what is not kept of a prompt, piece by piece; returns how many pieces are kept then."""
    for number in range(len(blocks.kept(names)), len(names)):
        blocks.keep(names[: number + 1], BLOCK)
    return len(blocks.kept(names))


def test_a_name_tells_the_tokens_and_all_before() -> None:
    one, other = chain([1, 2, 3, 4], 2, long=False), chain([9, 2, 3, 4], 2, long=False)
    assert len(one) == 2
    assert not set(one) & set(other)
    assert not set(one) & set(chain([1, 2, 3, 4], 2, long=True))
    assert chain([1, 2, 3, 4, 5], 2, long=False) == one


def test_bytes_are_counted_and_bounded() -> None:
    blocks = PrefixBlocks(3 * 400)
    assert keep(blocks, names_of(0, 2)) == 2
    assert blocks.size == 800
    assert keep(blocks, names_of(100, 2)) == 2
    assert blocks.size == 1200
    blocks.clear()
    assert blocks.size == 0
    assert not blocks.kept(names_of(0, 2))


def test_a_prompt_longer_than_the_budget_keeps_its_beginning() -> None:
    blocks, names = PrefixBlocks(3 * 400), names_of(0, 5)
    for _ in range(3):
        assert keep(blocks, names) == 3


def test_what_was_used_last_stays_and_its_beginning_longest() -> None:
    blocks = PrefixBlocks(3 * 400)
    old, shared = names_of(0, 1), names_of(50, 2)
    keep(blocks, old)
    keep(blocks, shared)
    assert keep(blocks, names_of(100, 1)) == 1
    assert [len(blocks.kept(names)) for names in (old, shared)] == [0, 2]
    assert keep(blocks, names_of(200, 1)) == 1  # the one at 100 was used before those at 50
    assert len(blocks.kept(shared)) == 2


def test_a_piece_larger_than_the_budget_or_without_its_beginning_is_not_kept() -> None:
    blocks = PrefixBlocks(300)
    blocks.keep(names_of(0, 1), BLOCK)
    assert blocks.size == 0
    blocks = PrefixBlocks(4000)
    blocks.keep(names_of(0, 2), BLOCK)
    assert blocks.size == 0
