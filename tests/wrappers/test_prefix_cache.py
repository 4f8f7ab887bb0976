"""The cache of conversations: finds, bounds, order."""

from hypothesis import given
from hypothesis import strategies as st

from steps.wrappers.served.prefix_cache import WORTH_REUSING, CacheEntry, PrefixCache, shared_length

tokens = st.lists(st.integers(0, 3), max_size=40)


@given(tokens, tokens, tokens)
def test_shared_length(common: list[int], first: list[int], second: list[int]) -> None:
    one, two = common + first, common + second
    expected = 0
    while expected < min(len(one), len(two)) and one[expected] == two[expected]:
        expected += 1
    assert shared_length(one, two) == expected


def kept(ids: list[int], size: int = 10) -> CacheEntry:
    return CacheEntry(generator=object(), tokens=ids, capacity=len(ids) + 8, size=size)


def test_the_longest_shared_beginning_wins_and_a_token_is_left_to_compute() -> None:
    cache = PrefixCache(100)
    short, long = kept(list(range(WORTH_REUSING))), kept(list(range(2 * WORTH_REUSING)))
    cache.keep(short)
    cache.keep(long)
    assert cache.find(list(range(2 * WORTH_REUSING))) == (long, 2 * WORTH_REUSING - 1)


def test_another_conversation_with_the_same_system_prompt_is_left_alone() -> None:
    cache = PrefixCache(100)
    cache.keep(kept(list(range(200))))
    assert cache.find([*range(50), *range(1000, 1100)]) is None


def test_the_oldest_go_first_and_the_bound_holds() -> None:
    cache = PrefixCache(25)
    conversations = [kept([number] * 50) for number in range(3)]
    for conversation in conversations:
        cache.keep(conversation)
        assert cache.size <= 25
    assert cache.find([0] * 60) is None
    assert cache.find([2] * 60) is not None


def test_no_budget_keeps_nothing() -> None:
    cache = PrefixCache(0)
    cache.keep(kept([1] * 50))
    assert cache.size == 0
    assert cache.find([1] * 60) is None


def test_what_is_taken_is_gone() -> None:
    cache = PrefixCache(100)
    conversation = kept([1] * 50)
    cache.keep(conversation)
    cache.take(conversation)
    cache.take(conversation)
    assert (cache.size, cache.find([1] * 60)) == (0, None)
