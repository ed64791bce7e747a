"""RoPE: its descriptor, its frequencies, and how it turns rows of K."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import require
from .floats import fp32
from .portable_math import cos_sin, log, power

NEOX, GPT_J = 0, 1
NO_SCALING, LINEAR, LLAMA3, YARN = range(4)
Angles = list[tuple[float, float]]
"""The cosine and the sine of each pair's angle."""


@dataclass(frozen=True)
class RopeDescriptor:
    """The fields of "A RoPE descriptor"."""

    pairing: int
    scaling: int
    rotary_dim: int
    original_max_position: int
    theta: float
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    beta_fast: float
    beta_slow: float
    attention_factor: float


def check_descriptor(rope: RopeDescriptor, head_dim: int) -> None:
    """The column "bounds" of the table of descriptors. `head_dim` is that of K."""
    require(rope.pairing in (NEOX, GPT_J), f"RoPE: pairing {rope.pairing}, expected 0 or 1")
    require(rope.scaling <= YARN, f"RoPE: scaling {rope.scaling}, expected 0 to 3")
    require(
        rope.rotary_dim % 2 == 0 and 0 <= rope.rotary_dim <= head_dim,
        f"RoPE: rotary_dim {rope.rotary_dim}, expected an even number from 0 to {head_dim}",
    )
    require(all(map(math.isfinite, dataclasses.astuple(rope))), "RoPE: a number is not finite")
    require(rope.theta > 1, f"RoPE: theta {rope.theta}, expected above 1")
    require(rope.factor > 0 and rope.attention_factor > 0, "RoPE: a factor is not above 0")
    if rope.scaling in (LLAMA3, YARN):
        require(rope.original_max_position >= 1, "RoPE: original_max_position is below 1")
    if rope.scaling == LLAMA3:
        require(0 < rope.low_freq_factor < rope.high_freq_factor, "RoPE: frequency factors are not in order")
    if rope.scaling == YARN:
        require(rope.beta_fast > 0 and rope.beta_slow > 0, "RoPE: a beta is not above 0")


@functools.cache
def frequencies(rope: RopeDescriptor) -> list[float]:
    """The fp32 frequency of each pair: "RoPE" in "Arithmetic"."""
    scaled = {NO_SCALING: _unscaled, LINEAR: _linear, LLAMA3: _llama3, YARN: _yarn}[rope.scaling]
    pairs = range(rope.rotary_dim // 2)
    return [fp32(scaled(rope, i, 1.0 / power(rope.theta, 2.0 * i / rope.rotary_dim))) for i in pairs]


def _unscaled(rope: RopeDescriptor, i: int, f: float) -> float:
    """The frequency f of pair i, without scaling."""
    return f


def _linear(rope: RopeDescriptor, i: int, f: float) -> float:
    """The frequency with linear scaling."""
    return f / rope.factor


def _llama3(rope: RopeDescriptor, i: int, f: float) -> float:
    """The frequency with Llama-3 scaling."""
    wavelength = 2 * math.pi / f
    if wavelength > rope.original_max_position / rope.low_freq_factor:
        return f / rope.factor
    if wavelength < rope.original_max_position / rope.high_freq_factor:
        return f
    s = rope.original_max_position / wavelength - rope.low_freq_factor
    s /= rope.high_freq_factor - rope.low_freq_factor
    return (1 - s) * f / rope.factor + s * f


def _yarn(rope: RopeDescriptor, i: int, f: float) -> float:
    """The frequency with YaRN scaling."""

    def dim(rotations: float) -> float:
        turns = rope.original_max_position / (2 * math.pi * rotations)
        return rope.rotary_dim * log(turns) / (2 * log(rope.theta))

    low = max(math.floor(dim(rope.beta_fast)), 0.0)
    high = min(math.ceil(dim(rope.beta_slow)), rope.rotary_dim - 1.0)
    if high == low:
        high += 0.001
    r = min(max((i - low) / (high - low), 0.0), 1.0)
    return f / rope.factor * r + f * (1 - r)


@functools.lru_cache(4096)
def angles_at(rope: RopeDescriptor, position: int) -> Angles:
    """The angles that turn K from before RoPE to a position: "RoPE" in "Arithmetic"."""
    attention_factor = fp32(rope.attention_factor)
    angles = [fp32(fp32(position) * frequency) for frequency in frequencies(rope)]
    turns = [cos_sin(angle) for angle in angles]
    return [(fp32(fp32(cos) * attention_factor), fp32(fp32(sin) * attention_factor)) for cos, sin in turns]


@functools.lru_cache(4096)
def angles_between(rope: RopeDescriptor, computed: int, wanted: int) -> Angles:
    """The angles that turn K of the lossless level from one position to another:
    "Positions" in "lossless"."""
    angles = [fp32(fp32(wanted) * f) - fp32(fp32(computed) * f) for f in frequencies(rope)]
    return [(fp32(cos), fp32(sin)) for cos, sin in map(cos_sin, angles)]


def turn(rope: RopeDescriptor, angles: Angles, row: Sequence[float]) -> list[float]:
    """A row of K with its pairs turned. The elements from rotary_dim on do not change."""
    turned = list(row)
    for i, (c, s) in enumerate(angles):
        first, second = (i, i + rope.rotary_dim // 2) if rope.pairing == NEOX else (2 * i, 2 * i + 1)
        x, y = row[first], row[second]
        turned[first] = fp32(fp32(x * c) - fp32(y * s))
        turned[second] = fp32(fp32(y * c) + fp32(x * s))
    return turned
