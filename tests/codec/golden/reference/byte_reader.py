"""Reads little-endian values from bytes, and computes CRCs."""

from __future__ import annotations

import struct
from typing import Any

from .errors import require


class ByteReader:
    """Takes one value after another from `data`. Raises DataLoss where the bytes end too
    early; `what` names the bytes in the text of the error."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self.what = what
        self.at = 0

    @property
    def left(self) -> int:
        """The number of bytes that are not taken yet."""
        return len(self._data) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        require(size <= self.left, f"{self.what}: {self.left} bytes left, expected {size} or more")
        self.at += size
        return self._data[self.at - size : self.at]

    def values(self, layout: str) -> tuple[Any, ...]:
        """The next values. `layout` is a format of the struct module, without byte order."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def value(self, layout: str) -> Any:
        """The next value."""
        return self.values(layout)[0]

    def finish(self) -> None:
        """Raises DataLoss if any bytes are left."""
        require(self.left == 0, f"{self.what}: {self.left} bytes too many")


def _crc_table() -> list[int]:
    """The CRC-32C of each byte: the polynomial is 82f63b78, with its lowest bit first."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """The CRC-32C: the CRC of every format in docs/formats.md."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def is_zero(data: bytes) -> bool:
    """Whether every byte is 0."""
    return not any(data)
