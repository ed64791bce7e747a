"""Random and real texts for comparing tokenizers, the same for equal seeds."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

FORMS: list[Literal["NFC", "NFD", "NFKC", "NFKD"]] = ["NFC", "NFD", "NFKC", "NFKD"]
SCRIPTS = [
    (0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x180), (0x180, 0x250), (0x250, 0x370), (0x370, 0x400), (0x400, 0x530),
    (0x530, 0x600), (0x600, 0x700), (0x700, 0x900), (0x900, 0xE00), (0xE00, 0x1000), (0x1000, 0x1200),
    (0x1100, 0x1200), (0x1200, 0x1A00), (0x1A00, 0x1E00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2C00),
    (0x2C00, 0x3000), (0x3000, 0x3100), (0x3100, 0x3400), (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7A4),
    (0xF900, 0xFB00), (0xFB00, 0x10000), (0x10000, 0x11000), (0x11000, 0x12000), (0x16800, 0x17000),
    (0x1D100, 0x1D800), (0x1E000, 0x1F000), (0x1F000, 0x1FB00), (0x20000, 0x20100), (0x2F800, 0x2FA20),
    (0xE0000, 0xE01F0),
]  # fmt: skip
MARKS = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me")]
SPACES = [chr(c) for c in range(0x3001) if chr(c).isspace()] + ["\u200b", "\u2060", "\ufeff", "\u180e", "▁", "  "]
CONTROLS = [chr(c) for c in [*range(0x20), *range(0x7F, 0xA0)]] + ["\u200c", "\u200d", "\u202e", "\ufffe"]
BITS = [
    "'s", "'S", "'ll", "'LL", "'ve", "don't", "\u017f", "'\u017f", "1009", "3.14", "٣٤", "\u2167", "½", "²", "\r\n",
    "\n\n", " \n", "\t", "  ", "   x", "<s>", "</s>", "<unk>", "<0x0A>", "<|im_start|>", "<|endoftext|>", "<left>",
    " <right> ", "<both>", " <inner  ", "word", "words", "vault", "VAULT elm", "Ämter", "A\u0308mter", "\u2460", "é",
    "e\u0301", "\u212b", "\u00c5", "\ufb01", "\ufdfa", "각", "\u1100\u1161\u11a8", "\u0130",
    "\u03a3\u0391\u03a3", "ẞ", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
    "a\u0327\u0301", "[INST]", "Ġ", "##", "_", "\u0308", "e ", "ee",
]  # fmt: skip


def code_point(rng: random.Random, scripts: Sequence[tuple[int, int]] = SCRIPTS) -> str:
    """An assigned character: the libraries' versions of Unicode disagree on the newest ones."""
    low, high = rng.choice(scripts)
    while True:
        character = chr(rng.randrange(low, high))
        if unicodedata.category(character) not in ("Cs", "Cn"):
            return character


def of_one_script(rng: random.Random) -> str:
    script = [rng.choice(SCRIPTS)]
    return "".join(code_point(rng, script) if rng.random() < 0.85 else " " for _ in range(rng.randrange(1, 40)))


def of_all_scripts(rng: random.Random) -> str:
    return "".join(code_point(rng) for _ in range(rng.randrange(1, 30)))


def with_marks(rng: random.Random) -> str:
    pieces = (code_point(rng) + "".join(rng.choices(MARKS, k=rng.randrange(0, 4))) for _ in range(rng.randrange(1, 12)))
    return "".join(pieces)


def of_bits(rng: random.Random) -> str:
    pools: list[Callable[[], str]] = [
        lambda: rng.choice(BITS),
        lambda: rng.choice(BITS),
        lambda: rng.choice(SPACES),
        lambda: rng.choice(CONTROLS),
        lambda: code_point(rng),
        lambda: chr(rng.randrange(0x21, 0x7F)),
    ]
    return "".join(rng.choice(pools)() for _ in range(rng.randrange(0, 25)))


def run(rng: random.Random) -> str:
    character = rng.choice([code_point(rng), rng.choice(BITS), rng.choice(SPACES)])
    return rng.choice(["", " ", "x"]) + character * rng.randrange(1, 200) + rng.choice(["", "x", "\n"])


def read_lines(paths: Sequence[Path]) -> list[str]:
    lines = []
    for path in paths:
        lines += path.read_text(encoding="utf-8", errors="ignore").splitlines(keepends=True)
    return lines


def texts(count: int, seed: int, lines: Sequence[str]) -> list[str]:
    """`lines` are real texts; a third of the result is made of them."""
    rng = random.Random(seed)

    def real(rng: random.Random) -> str:
        begin = rng.randrange(len(lines))
        return "".join(lines[begin : begin + rng.randrange(1, 6)])

    def decomposed(rng: random.Random) -> str:
        text = rng.choice([real, with_marks, of_one_script])(rng)
        return unicodedata.normalize(rng.choice(FORMS), text)

    def changed(rng: random.Random) -> str:
        text = list(real(rng))
        for _ in range(rng.randrange(1, 8)):
            text[rng.randrange(len(text)) if text else 0 : rng.randrange(len(text) + 1)] = rng.choice(BITS)
        return "".join(text)

    kinds = [real, real, changed, decomposed, of_one_script, of_all_scripts, with_marks, of_bits, of_bits, run]
    return [rng.choice(kinds)(rng) for _ in range(count)]
