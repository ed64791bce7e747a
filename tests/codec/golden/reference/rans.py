"""rANS streams: the section "rANS streams"."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .errors import DataLoss, require

LANES = 32
SYMBOLS = 256
_TABLE_SUM = 4096
_LOWEST_STATE = 1 << 16


class RansTable:
    """The frequencies of the 256 symbols, and what decoding derives from them."""

    def __init__(self, frequencies: Sequence[int]) -> None:
        total = sum(frequencies)
        require(total == _TABLE_SUM, f"rANS table: the frequencies add up to {total}, expected {_TABLE_SUM}")
        self.frequencies = list(frequencies)
        self.starts: list[int] = []
        self.symbol_of_slot: list[int] = []
        for symbol, frequency in enumerate(frequencies):
            self.starts.append(len(self.symbol_of_slot))
            self.symbol_of_slot += [symbol] * frequency


class RansDecoder:
    """Decodes one stream, run after run."""

    def __init__(self, stream: bytes) -> None:
        size = len(stream)
        require(size >= 4 * LANES and size % 2 == 0, f"rANS stream: {size} bytes, expected 128 or more, and even")
        self._states = list(struct.unpack_from(f"<{LANES}I", stream))
        self._words = struct.unpack_from(f"<{(size - 4 * LANES) // 2}H", stream, 4 * LANES)
        self._next = 0
        require(min(self._states) >= _LOWEST_STATE, "rANS stream: a state is below 2^16")

    def run(self, steps: int, tables: Sequence[RansTable]) -> list[int]:
        """The symbols of one run, by step and lane. `tables` has the table of each lane."""
        symbols: list[int] = []
        for _ in range(steps):
            symbols += self._decode_symbols(tables)
            self._take_words()
        return symbols

    def finish(self) -> None:
        """Checks the end of the stream, after the last run."""
        require(self._next == len(self._words), "rANS stream: words are left over")
        require(set(self._states) == {_LOWEST_STATE}, "rANS stream: a state does not end at 2^16")

    def _decode_symbols(self, tables: Sequence[RansTable]) -> list[int]:
        """The three lines of a step, in every lane."""
        symbols = []
        for lane, table in enumerate(tables):
            state = self._states[lane]
            slot = state % _TABLE_SUM
            symbol = table.symbol_of_slot[slot]
            self._states[lane] = table.frequencies[symbol] * (state >> 12) + slot - table.starts[symbol]
            symbols.append(symbol)
        return symbols

    def _take_words(self) -> None:
        """The words that lanes take after a step."""
        for lane, state in enumerate(self._states):
            if state < _LOWEST_STATE:
                if self._next == len(self._words):
                    raise DataLoss("rANS stream: words are missing")
                self._states[lane] = state << 16 | self._words[self._next]
                self._next += 1
