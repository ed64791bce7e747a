"""Small tokenizers, each with other parts of the tokenizers library.

Their vocabularies are trained on a few lines, so that the files can be made anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    "The code of vault elm is 1009, and the code of vault oak is 2718281828.",
    "for (int i = 0; i < size; ++i) { sum += values[i] * 0.5; }  // a comment",
    "Ein schöner Tag für Ämter. Être ou ne pas être, là est la question. ¿Qué pasa? Привет, мир! Γειά",
    "你好、世界。今天天气很好。 こんにちは世界 안녕하세요 세계 नमस्ते दुनिया สวัสดีชาวโลก مرحبا بالعالم שלום עולם",
    "don't we'll they've I'm it's he'd  two  spaces\tand a tab\r\nnew line\n\n\nthree new lines",
]


ADDED = [
    AddedToken("<left>", lstrip=True, special=True),
    AddedToken("<right>", rstrip=True, special=True),
    AddedToken("<both>", lstrip=True, rstrip=True),
    AddedToken(" <inner ", rstrip=True),
    AddedToken("word", single_word=True),
    AddedToken("vault", normalized=True),
    AddedToken("VAULT elm", normalized=True),
    AddedToken("va", normalized=False),
    AddedToken("Ämter", normalized=True),
    AddedToken("Ämter", normalized=False),
    AddedToken("①", normalized=True),
]


def bpe(**options: object) -> Tokenizer:
    return Tokenizer(models.BPE(**options))


def train(tokenizer: Tokenizer, *, size: int = 700, **options: object) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(LINES * 3, trainer)
    return tokenizer


def with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Trains on stand-ins for bytes; ByteLevel must be the last pre-tokenizer."""
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def byte_level(pre_tokenizer: object = None, normalizer: object = None) -> Tokenizer:
    tokenizer = bpe()
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return with_bytes(tokenizer)


def in_sequence(*parts: object, use_regex: bool = False) -> Tokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return byte_level(pre_tokenizers.Sequence([*parts, last]))


def split(pattern: str, behavior: str, invert: bool = False, regex: bool = True) -> Tokenizer:
    return in_sequence(pre_tokenizers.Split(Regex(pattern) if regex else pattern, behavior, invert))


def front(tokenizer: Tokenizer, content: str) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(content, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{content} $A", special_tokens=[(content, tokenizer.token_to_id(content))]
    )
    return tokenizer


def sentencepiece(prepend_scheme: str | None, *, do_split: bool = False, fuse: bool = True) -> Tokenizer:
    tokenizer = bpe(unk_token="<unk>", fuse_unk=fuse, byte_fallback=True)
    alphabet = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if prepend_scheme is None:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(parts)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=do_split)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme, split=do_split)
    return front(train(tokenizer, special_tokens=alphabet, limit_alphabet=60), "<s>")


def unknown(*, fuse: bool, unk: str | None = "<unk>") -> Tokenizer:
    tokenizer = bpe(unk_token=unk, fuse_unk=fuse)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.Fuse()
    return train(tokenizer, special_tokens=["<unk>"], limit_alphabet=40)


def words(pre_tokenizer: object, normalizer: object = None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def added(normalizer: object = None, tokens: Sequence[AddedToken] = ADDED) -> Tokenizer:
    tokenizer = byte_level(normalizer=normalizer)
    tokenizer.add_tokens(list(tokens))
    return front(tokenizer, "<s>")


def normalized(*steps: object) -> Tokenizer:
    return byte_level(normalizer=normalizers.Sequence(list(steps)))


def all_splits() -> dict[str, Callable[[], Tokenizer]]:
    splits: dict[str, Callable[[], Tokenizer]] = {}
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            name = f"split-{behavior}{'-invert' if invert else ''}"
            splits[name] = partial(split, r"\s?\p{L}{1,3}|\p{N}*?", behavior, invert)
            splits[name + "-string"] = partial(split, "e ", behavior, invert, regex=False)
    return splits


MADE: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: front(byte_level(), "<|begin|>"),
    "byte-level-prefix-space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "byte-level-no-regex": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "digits-each": lambda: in_sequence(pre_tokenizers.Digits(individual_digits=True), use_regex=True),
    "digits-runs": lambda: in_sequence(pre_tokenizers.Digits(individual_digits=False), use_regex=True),
    "punctuation": lambda: in_sequence(pre_tokenizers.Punctuation("isolated"), use_regex=True),
    "punctuation-contiguous": lambda: in_sequence(pre_tokenizers.Punctuation("contiguous"), use_regex=True),
    "delimiter": lambda: in_sequence(pre_tokenizers.CharDelimiterSplit("e")),
    "whitespace-bytes": lambda: in_sequence(pre_tokenizers.Whitespace()),
    "falcon": lambda: in_sequence(
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ),
    **all_splits(),
    "nfc": lambda: normalized(normalizers.NFC()),
    "nfd": lambda: normalized(normalizers.NFD()),
    "nfkc": lambda: normalized(normalizers.NFKC()),
    "nfkd-accents-lower": lambda: normalized(
        normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip(True, True)
    ),
    "strip-left": lambda: normalized(normalizers.Strip(True, False), normalizers.Replace(Regex(r"\d+|\s\w"), "#")),
    "sentencepiece": lambda: sentencepiece(None),
    "sentencepiece-first": lambda: sentencepiece("first"),
    "sentencepiece-always": lambda: sentencepiece("always", do_split=True),
    "sentencepiece-never": lambda: sentencepiece("never", do_split=True, fuse=False),
    "unknown-fused": lambda: unknown(fuse=True),
    "unknown-single": lambda: unknown(fuse=False),
    "words": lambda: words(pre_tokenizers.Whitespace()),
    "words-split": lambda: words(pre_tokenizers.WhitespaceSplit(), normalizers.Lowercase()),
    "words-digits": lambda: words(pre_tokenizers.Digits(individual_digits=True)),
    "words-punctuation": lambda: words(pre_tokenizers.Punctuation("isolated")),
    "added": added,
    "added-spaces": lambda: added(tokens=[AddedToken("  "), AddedToken(" " * 8, normalized=False)]),
    "added-nfkc-lower": lambda: added(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "added-strip": lambda: added(normalizers.Strip(True, True)),
}


def make(name: str, directory: Path) -> Path:
    """Makes directory/name/tokenizer.json and returns directory/name."""
    target = directory / name
    target.mkdir(parents=True, exist_ok=True)
    made = json.loads(MADE[name]().to_str())
    if name in ("digits-each", "falcon"):
        made["model"]["ignore_merges"] = True
    (target / "tokenizer.json").write_text(json.dumps(made))
    return target
