"""Pieces of prompts that were computed, kept for prompts that begin alike."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

Block = list[Any]  # (heads, tokens, size) of every buffer


def chain(ids: Sequence[int], piece: int, *, long: bool) -> list[bytes]:
    """Names of the whole pieces that a prompt begins with; each tells its tokens and all before.

    Args:
        ids: the prompt.
        piece: tokens of a piece.
        long: whether it lies past LongRoPE's border, where keys are others.
    """
    name = b"long" if long else b""
    names = []
    for start in range(0, len(ids) - piece + 1, piece):
        tokens = np.asarray(ids[start : start + piece], np.int64).tobytes()
        name = hashlib.blake2b(name + tokens, digest_size=20).digest()
        names.append(name)
    return names


class PrefixBlocks:
    """Keys and values of pieces, the least recently used out, bounded in the bytes they are.

    A piece is computed from the same tokens at the same positions wherever it occurs, so an answer
    is the same whether its prompt was kept or not.

    Args:
        budget: bytes that may be kept; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.size = 0  # bytes
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()

    def __contains__(self, name: bytes) -> bool:
        return name in self._blocks

    def kept(self, names: Sequence[bytes]) -> list[Block]:
        """The blocks of the first pieces, up to the first that is not kept."""
        blocks = []
        for name in names:
            if name not in self._blocks:
                break
            blocks.append(self._blocks[name])
        for name in reversed(names[: len(blocks)]):  # what others begin with goes last
            self._blocks.move_to_end(name)
        return blocks

    def keep(self, names: Sequence[bytes], block: Block) -> None:
        """Keep a piece, where the budget holds it with those before it, which it is of no use
        without; the oldest others go.

        Args:
            names: of the prompt's pieces up to this one.
            block: of the last of them.
        """
        *before, name = names
        size = sum(values.nbytes for values in block)
        if name in self._blocks or len(self.kept(before)) < len(before):
            return
        while self.size + size > self.budget:
            oldest = next(iter(self._blocks), None)
            if oldest is None or oldest in before:
                return
            self.size -= sum(values.nbytes for values in self._blocks.pop(oldest))
        self._blocks[name] = block
        self.size += size
        self.kept(names)

    def clear(self) -> None:
        """Let everything go."""
        self._blocks.clear()
        self.size = 0
