"""A set of offsets that takes one bit for each. Pure."""

from __future__ import annotations

from collections.abc import Iterable

BLOCK = 4096
"""Offsets of a block."""


class Offsets:
    """Offsets of one partition. Neighbours share a block, so a contiguous stretch takes an eighth of a byte each."""

    def __init__(self, offsets: Iterable[int] = ()) -> None:
        self._blocks: dict[int, int] = {}
        self.add(offsets)

    def add(self, offsets: Iterable[int]) -> None:
        """Add offsets."""
        for offset in offsets:
            number, bit = divmod(offset, BLOCK)
            self._blocks[number] = self._blocks.get(number, 0) | 1 << bit

    def update(self, other: Offsets) -> None:
        """Add the offsets of another set."""
        for number, bits in other._blocks.items():
            self._blocks[number] = self._blocks.get(number, 0) | bits

    def __contains__(self, offset: int) -> bool:
        number, bit = divmod(offset, BLOCK)
        return bool(self._blocks.get(number, 0) >> bit & 1)

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def forget_below(self, offset: int) -> None:
        """Forget offsets below this one, but for some near it."""
        for number in [each for each in self._blocks if each < offset // BLOCK]:
            del self._blocks[number]
