"""KV caches kept between turns of conversations, least recently used out, bounded in bytes."""

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
    """Keeps generators after their turn and finds the one that computed a prompt's beginning.

    Args:
        budget: bytes that may be kept; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0
        self._entries: OrderedDict[int, CacheEntry] = OrderedDict()

    def find(self, ids: list[int], *, long: bool = False) -> tuple[CacheEntry, int] | None:
        """Find the kept conversation that shares most with a prompt, and how many tokens.

        At least one token of the prompt is left to compute, as the model must run to give the next
        one. A conversation of which less than half would survive is left alone: it belongs to
        another caller who began with the same system prompt.

        Args:
            ids: the prompt.
            long: whether it lies past LongRoPE's border; only conversations on the same side of it
                are of use.
        """
        best: tuple[CacheEntry, int] | None = None
        for entry in self._entries.values():
            if entry.long != long:
                continue
            shared = min(shared_length(entry.tokens, ids), len(ids) - 1)
            if (
                shared >= WORTH_REUSING
                and shared * 2 >= len(entry.tokens)
                and (best is None or shared > best[1])
            ):
                best = (entry, shared)
        return best

    def take(self, entry: CacheEntry) -> None:
        """Remove a conversation, to use or to drop it."""
        if self._entries.pop(id(entry), None) is not None:
            self.size -= entry.size

    def keep(self, entry: CacheEntry) -> None:
        """Add a conversation as the most recently used; the oldest go until the budget holds."""
        if entry.size > self.budget or not entry.tokens:
            return
        self._entries[id(entry)] = entry
        self.size += entry.size
        while self.size > self.budget:
            _, oldest = self._entries.popitem(last=False)
            self.size -= oldest.size

    def clear(self) -> None:
        """Let everything go."""
        self._entries.clear()
        self.size = 0
