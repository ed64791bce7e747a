"""Parts of a piece of memory never overlap, and come together again."""

from __future__ import annotations

import random

import pytest

from kdn.extents import Extents


@pytest.mark.parametrize("seed", range(20))
def test_parts_never_overlap_and_all_memory_comes_back(seed: int) -> None:
    rng = random.Random(seed)
    extents = Extents(1000)
    parts: dict[int, int] = {}
    owner = [False] * 1000
    for _ in range(500):
        if parts and rng.random() < 0.45:
            begin, size = parts.popitem() if rng.random() < 0.5 else (lambda b: (b, parts.pop(b)))(rng.choice([*parts]))
            owner[begin : begin + size] = [False] * size
            extents.give_back(begin, size)
            continue
        size = rng.randrange(1, 200)
        runs = [len(run) for run in "".join("x" if used else "." for used in owner).split("x")]
        fits = min((run for run in runs if run >= size), default=None)
        assert extents.smallest(size) == fits
        if fits is not None:
            begin = extents.take(size)
            assert not any(owner[begin : begin + size]), "it belongs to another part"
            owner[begin : begin + size] = [True] * size
            parts[begin] = size
        assert extents.whole == (not parts)
    for begin, size in parts.items():
        extents.give_back(begin, size)
    assert extents.whole
    assert extents.take(1000) == 0
