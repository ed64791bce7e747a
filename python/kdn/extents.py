"""Which parts of a piece of memory are free."""

from __future__ import annotations

import bisect


class Extents:
    """Gives out parts of `size` bytes of memory, and takes them back. Parts do not overlap.
    Free neighbours are one extent. When all parts are back, the memory is one free extent
    again (`whole`)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._begins = [0]  # of the free extents, ascending
        self._sizes = {0: size}

    @property
    def whole(self) -> bool:
        """Whether no part is given out."""
        return self._sizes == {0: self.size}

    def smallest(self, size: int) -> int | None:
        """The bytes of the smallest free extent that has `size` bytes; None without one."""
        return min((each for each in self._sizes.values() if each >= size), default=None)

    def take(self, size: int) -> int:
        """The offset of a part of `size` bytes, at the beginning of the smallest extent that
        has them. `smallest(size)` must not be None."""
        begin = min((b for b in self._begins if self._sizes[b] >= size), key=lambda b: self._sizes[b])
        rest = self._remove(begin) - size
        if rest:
            self._add(begin + size, rest)
        return begin

    def give_back(self, begin: int, size: int) -> None:
        """Takes back a part that `take` gave out."""
        at = bisect.bisect(self._begins, begin)
        if at < len(self._begins) and self._begins[at] == begin + size:
            size += self._remove(begin + size)
        if at > 0:
            before = self._begins[at - 1]
            if before + self._sizes[before] == begin:
                begin, size = before, size + self._remove(before)
        self._add(begin, size)

    def _add(self, begin: int, size: int) -> None:
        bisect.insort(self._begins, begin)
        self._sizes[begin] = size

    def _remove(self, begin: int) -> int:
        self._begins.remove(begin)
        return self._sizes.pop(begin)
