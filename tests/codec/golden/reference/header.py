"""The header of an object: everything before its index."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .byte_reader import ByteReader, is_zero
from .errors import require
from .fixed_fields import FixedFields
from .rope import RopeDescriptor, check_descriptor

_NAME = re.compile(rb"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Header:
    """The fields of "The rest of the prefix" up to the positions."""

    fixed: FixedFields
    fingerprint: bytes
    condition: bytes
    calibration: bytes
    ropes: tuple[RopeDescriptor, ...]  # one for each layer
    namespace: str
    variant: str
    token_ids: tuple[int, ...]
    positions: tuple[int, ...]


def header_bytes(fixed: FixedFields) -> int:
    """The bytes of the header, from the first byte of the object to the index."""
    descriptors = 56 if fixed.version == 2 else 68 * fixed.ropes
    numbers = fixed.layers if fixed.ropes > 1 else 0
    names = fixed.namespace_bytes + fixed.variant_bytes
    return 64 + 4 * 32 + descriptors + numbers + names + 8 * fixed.tokens


def parse_header(fixed: FixedFields, reader: ByteReader) -> Header:
    """Parses and checks what follows the first 64 bytes. `reader` continues with the index."""
    fingerprint, condition, _, calibration = (reader.take(32) for _ in range(4))
    ropes = _ropes(fixed, reader)
    namespace, variant = reader.take(fixed.namespace_bytes), reader.take(fixed.variant_bytes)
    token_ids = reader.values(f"{fixed.tokens}i")
    positions = reader.values(f"{fixed.tokens}i")
    for name in (namespace, variant):
        require(_NAME.fullmatch(name) is not None, f"object: name {name!r}, expected characters A-Z a-z 0-9 . _ -")
    require(min(token_ids) >= 0, f"object: token id {min(token_ids)}, expected at least 0")
    require(min(positions) >= 0, f"object: position {min(positions)}, expected at least 0")
    if fixed.depth is not None:
        alone = is_zero(condition)
        require(alone == (fixed.depth == 0), f"object: depth {fixed.depth} with{'out' * alone} a condition")
    coded = any(level.is_transform_coded for level in fixed.levels)
    require(coded or is_zero(calibration), "object: a calibration, but no level that uses it")
    require(fixed.version != 4 or not is_zero(calibration), "object: version 4 without a calibration")
    return Header(
        fixed, fingerprint, condition, calibration, ropes,
        namespace.decode(), variant.decode(), token_ids, positions,
    )  # fmt: skip


def _ropes(fixed: FixedFields, reader: ByteReader) -> tuple[RopeDescriptor, ...]:
    """The RoPE of each layer: the descriptors, then the number of each layer's descriptor."""
    descriptors = [_descriptor(fixed, reader) for _ in range(fixed.ropes)]
    require(len(set(descriptors)) == fixed.ropes, "object: two RoPE descriptors are equal")
    numbers = reader.take(fixed.layers) if fixed.ropes > 1 else bytes(fixed.layers)
    in_order_of_use = list(dict.fromkeys(numbers))
    require(
        in_order_of_use == list(range(fixed.ropes)),
        f"object: layers use RoPE descriptors {in_order_of_use}, expected 0 to {fixed.ropes - 1} in this order",
    )
    return tuple(descriptors[number] for number in numbers)


def _descriptor(fixed: FixedFields, reader: ByteReader) -> RopeDescriptor:
    """One RoPE descriptor. Version 2 has its integers in the first 64 bytes."""
    if fixed.rope is not None:
        pairing, scaling, rotary_dim, original_max_position = fixed.rope
    else:
        pairing, scaling, reserved, rotary_dim, original_max_position = reader.values("BBHii")
        require(reserved == 0, "RoPE: the reserved bytes are not zero")
    rope = RopeDescriptor(pairing, scaling, rotary_dim, original_max_position, *reader.values("7d"))
    check_descriptor(rope, fixed.k_head_dim)
    return rope
