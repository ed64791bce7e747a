"""Numbers as the section "Arithmetic" wants them.

Python computes in fp64. `fp32` after each operation gives what fp32 arithmetic gives: for
one sum or product of two fp32 numbers, rounding to fp64 first changes nothing.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Sequence


class Dtype(enum.IntEnum):
    """The type of the engine's elements."""

    BF16 = 0
    FP16 = 1
    FP32 = 2

    @property
    def bytes(self) -> int:
        return 4 if self is Dtype.FP32 else 2


def _packed(code: str, value: float) -> bytes:
    """`value` in a format of the struct module; infinity if it is beyond the range."""
    try:
        return struct.pack(f"<{code}", value)
    except OverflowError:
        return struct.pack(f"<{code}", math.copysign(math.inf, value))


def fp32(value: float) -> float:
    """`value` rounded to fp32, to nearest with ties to even."""
    return struct.unpack("<f", _packed("f", value))[0]


def _bf16_bytes(value: float) -> bytes:
    """`value` rounded to bf16."""
    bits = int.from_bytes(_packed("f", value), "little")
    if math.isnan(value):
        return struct.pack("<H", bits >> 16 | 0x40)  # remains a NaN without its lower bits
    return struct.pack("<H", bits + 0x7FFF + (bits >> 16 & 1) >> 16)


def elements_of(dtype: Dtype, values: Sequence[float]) -> bytes:
    """fp32 numbers rounded to the dtype."""
    if dtype is Dtype.BF16:
        return b"".join(map(_bf16_bytes, values))
    return b"".join(_packed("e" if dtype is Dtype.FP16 else "f", value) for value in values)


def values_of(dtype: Dtype, elements: bytes) -> list[float]:
    """Elements of the dtype as fp32 numbers, exactly."""
    count = len(elements) // dtype.bytes
    if dtype is Dtype.BF16:
        halves = struct.unpack(f"<{count}H", elements)
        return list(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(half << 16 for half in halves))))
    return list(struct.unpack(f"<{count}{'e' if dtype is Dtype.FP16 else 'f'}", elements))
