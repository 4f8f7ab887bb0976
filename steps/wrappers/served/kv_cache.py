"""Keys and values of rows that are computed together, in slots of one capacity."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FLOAT_BYTES = 4
# Tokens that a capacity is a multiple of, and some more: where a head's keys lie a power of two
# apart from the next head's, they share the same few sets of the processor's cache.
CAPACITY_TOKENS, CAPACITY_OFFSET = 256, 16


@dataclass(frozen=True)
class LayerShape:
    """Keys, or values, of one layer.

    Attributes:
        past: name of the graph's input.
        present: name of the output.
        heads: of keys and values.
        size: of a head.
    """

    past: str
    present: str
    heads: int
    size: int


class KVCache:
    """Buffers of shape (slots, heads, capacity, size), float32, for the keys and for the values of
    every layer.

    The system gives memory to what is written alone, so slots that were never used take none.

    Args:
        layers: keys and values of the layers, in the order of the graph.
        slots: rows there is room for.
    """

    def __init__(self, layers: Sequence[LayerShape], slots: int) -> None:
        self._layers, self._slots = layers, slots
        self.token_bytes = FLOAT_BYTES * sum(layer.heads * layer.size for layer in layers)
        self.capacity = 0  # tokens of a slot
        self.version = object()  # another one whenever addresses change, in any cache
        self._buffers: list[Any] = []

    @staticmethod
    def rounded(tokens: int) -> int:
        """The capacity that holds so many tokens."""
        whole = -(-(tokens - CAPACITY_OFFSET) // CAPACITY_TOKENS) * CAPACITY_TOKENS
        return max(whole, 0) + CAPACITY_OFFSET

    def reserve(self, capacity: int, used: Sequence[int]) -> None:
        """Give every slot room for ``capacity`` tokens; ``used`` are the tokens that the first
        slots hold, which are kept.

        Raises:
            MemoryError: the system has not so much; everything stays as it was.
        """
        if capacity == self.capacity:
            return
        old, made = self._buffers, []
        for layer in self._layers:
            made.append(untouched_zeros((self._slots, layer.heads, capacity, layer.size)))
        for index, buffer in enumerate(made):
            for slot, tokens in enumerate(used):
                buffer[slot, :, :tokens] = old[index][slot, :, :tokens]
            if old:
                old[index] = None  # no more than one buffer's tokens are held twice
        self._buffers, self.capacity = made, capacity
        self.version = object()

    def release(self) -> None:
        """Give everything back."""
        self._buffers, self.capacity = [], 0
        self.version = object()

    def place(self, index: int, first: int, count: int) -> tuple[tuple[int, ...], int]:
        """Shape and address of neighbouring slots in a buffer."""
        buffer = self._buffers[index]
        shape = (count, *buffer.shape[1:])
        return shape, buffer.ctypes.data + first * buffer.strides[0]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of a slot into another."""
        for buffer in self._buffers:
            buffer[target, :, :tokens] = buffer[source, :, :tokens]

    def read(self, slot: int, start: int, stop: int) -> list[Any]:
        """A copy of some tokens of a slot, (heads, tokens, size) for every buffer."""
        return [buffer[slot, :, start:stop].copy() for buffer in self._buffers]

    def write(self, slot: int, start: int, block: Sequence[Any]) -> None:
        """Write what ``read`` gave."""
        for buffer, values in zip(self._buffers, block, strict=True):
            buffer[slot, :, start : start + values.shape[1]] = values


def untouched_zeros(shape: tuple[int, ...]) -> Any:
    """Float32 zeros that take memory page by page, as they are written to, and give all of it back
    when they are dropped. ``numpy.zeros`` does so for the largest alone.

    Raises:
        MemoryError: the system does not grant so much.
    """
    try:
        memory = mmap.mmap(-1, FLOAT_BYTES * int(np.prod(shape)))
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(f"no memory for keys and values of shape {shape}") from error
    return np.frombuffer(memory, np.float32).reshape(shape)
