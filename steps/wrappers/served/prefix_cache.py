"""KV caches kept between the turns of conversations: least recently used go first, bounded in
bytes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# tokens; computing fewer again costs less than what a wrong choice of conversation would lose
WORTH_REUSING = 32


@dataclass(eq=False)
class CacheEntry:
    """A generator at rest.

    Args:
        generator: an onnxruntime-genai Generator whose KV cache holds ``tokens``.
        tokens: ids the KV cache was computed for.
        capacity: tokens the KV cache has room for.
        size: bytes it holds.
        long: whether its keys are rotated as those of texts past LongRoPE's border are.
    """

    generator: Any
    tokens: list[int]
    capacity: int
    size: int
    long: bool = False


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens two sequences begin with alike."""
    limit = min(len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    low, high = 0, limit  # first[:low] is alike, first[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


class PrefixCache:
    """Keeps generators after their turn and finds the one that already computed a prompt's
    beginning.

    Args:
        budget: bytes that may be kept; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._kept: OrderedDict[int, CacheEntry] = OrderedDict()

    def find(self, ids: list[int], *, long: bool = False) -> tuple[CacheEntry, int] | None:
        """Find the kept conversation that shares most with a prompt, and how many tokens of it are
        of use.

        At least one token of the prompt is left to compute, as the model must run to give the next
        one. A conversation of which less
        than half would survive is left alone: it belongs to somebody else who began with the same
            system prompt.

        Args:
            ids: the prompt.
            long: whether it lies past LongRoPE's border; only conversations on the same side of it
                are of use.
        """
        best: tuple[CacheEntry, int] | None = None
        for kept in self._kept.values():
            if kept.long != long:
                continue
            shared = min(shared_length(kept.tokens, ids), len(ids) - 1)
            if (
                shared >= WORTH_REUSING
                and shared * 2 >= len(kept.tokens)
                and (best is None or shared > best[1])
            ):
                best = (kept, shared)
        return best

    def take(self, kept: CacheEntry) -> None:
        """Remove a conversation, to use or to drop it."""
        if self._kept.pop(id(kept), None) is not None:
            self.size -= kept.size

    def keep(self, kept: CacheEntry) -> None:
        """Add a conversation as the most recently used and let the oldest go until the budget
        holds.
        """
        if kept.size > self.budget or not kept.tokens:
            return
        self._kept[id(kept)] = kept
        self.size += kept.size
        while self.size > self.budget:
            _, oldest = self._kept.popitem(last=False)
            self.size -= oldest.size

    def clear(self) -> None:
        """Let everything go."""
        self._kept.clear()
        self.size = 0
