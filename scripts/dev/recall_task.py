"""The recall task: templated English facts in several documents, and questions about them.

The three kinds of questions differ in what an answer needs:

* recall  - one fact in one document: "The code of vault amber is 4821."
* binding - a fact about an alias, which an earlier document declares: "The name Falcon means vault amber." ...
            "The code of Falcon is 4821." A document that is encoded alone does not know whose code this is.
* twohop  - two facts in two documents, which the question joins: "The key of vault amber is held by Nora." "Nora works in
            room attic."

Every word of the templates is one token of a byte-level BPE (see `Tokenizer`). So facts are short, but any other text can
be tokenised too.
"""
from __future__ import annotations

import random
from dataclasses import dataclass, field

VAULTS = """amber azure basalt beryl birch brass bronze cedar chalk cherry cobalt copper coral cotton crimson crystal
denim ebony elm emerald flint garnet ginger glass gold granite hazel indigo iron ivory jade jasper jet khaki lapis
lavender leather lemon lilac linen magenta mahogany maple marble mint moss nickel oak olive onyx opal orchid pearl peach
pewter pine plum poplar quartz ruby saffron sage silver slate""".split()
ALIASES = """Falcon Badger Heron Otter Lynx Raven Bison Cobra Gecko Hornet Jackal Koala Lemur Mole Newt Osprey Panther
Quail Robin Stork Tapir Urchin Viper Walrus Yak Zebra Beaver Condor Dolphin Eagle Ferret Gopher Hyena Ibis Kestrel
Lobster Magpie Narwhal Ocelot Puffin Rhino Salmon Toucan Vulture Weasel Cheetah Dingo Egret""".split()
PEOPLE = """Nora Adam Beth Carl Dora Emil Fay Gus Hana Igor Jane Kurt Lena Max Nils Olga Paul Rosa Sven Tara Uma Vera
Walt Yves Zoe Anna Boris Cleo Dirk Elsa Fred Greta Hugo Ines Jack Kira Liam Mona Noel Otto Pia Rolf Sara Theo Ursula
Viktor Wanda Xaver""".split()
ROOMS = """attic atrium balcony ballroom basement bunker cabin canteen cellar chapel closet corridor courtyard crypt den
dock dormitory foyer gallery garage greenhouse gym hall hangar hut kitchen laboratory larder laundry library lobby loft
lounge mezzanine nursery office pantry parlour pavilion porch sauna shed stable studio studyroom theatre tower
workshop""".split()
CODES = [str(1009 + 93 * i) for i in range(96)]
FILLER = """rain wind river stone garden market winter summer morning evening bread water paper lamp window door table
chair road bridge train boat horse bird tree leaf grass cloud storm light shadow music story letter song clock green blue
quiet slow early late often never always near under over behind between along across walks runs sleeps waits sings opens
closes turns falls grows moves stays looks hears old new small large warm cold bright dark soft and with but while after
before then still again many few some every other""".split()
FUNCTION = """The the code of vault is name means key held by works in room What which In holder""".split()
SPECIALS = ["<pad>", "<doc>", "<q>"]


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(keep))
    return table


class Tokenizer:
    """A byte-level BPE in which each template word, with its leading space, is one token.

    A word's merges build it from the left, one byte per merge. Every merged piece begins with the space, so the merges of
    two words never compete, and a word always becomes one token.
    """

    def __init__(self) -> None:
        alphabet = byte_alphabet()
        self.vocab: dict[str, int] = {s: i for i, s in enumerate(SPECIALS)}
        for b in range(256):
            self.vocab[alphabet[b]] = len(self.vocab)
        self.merges: list[tuple[str, str]] = []
        space = alphabet[ord(" ")]
        for word in [*FUNCTION, *VAULTS, *ALIASES, *PEOPLE, *ROOMS, *CODES, *FILLER]:
            piece = space
            for letter in word:
                if piece + letter not in self.vocab:
                    self.merges.append((piece, letter))
                    self.vocab[piece + letter] = len(self.vocab)
                piece += letter
        self.word = {w: self.vocab[space + w] for w in
                     [*FUNCTION, *VAULTS, *ALIASES, *PEOPLE, *ROOMS, *CODES, *FILLER]}
        self.word |= {s: self.vocab[s] for s in SPECIALS} | {c: self.vocab[c] for c in ".?"}
        self.text = {i: (w if w in SPECIALS or w in ".?" else " " + w) for w, i in self.word.items()}

    def ids(self, words: str) -> list[int]:
        """The token ids of template words and full stops, which are separated by spaces."""
        return [self.word[w] for w in words.split()]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.text[i] for i in ids)

    def to_json(self) -> dict:
        """The tokenizer.json of Hugging Face's `tokenizers`."""
        def special(i: int, content: str) -> dict:
            return dict(id=i, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False,
                        special=True)

        byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
        return dict(version="1.0", truncation=None, padding=None,
                    added_tokens=[special(i, s) for i, s in enumerate(SPECIALS)], normalizer=None,
                    pre_tokenizer=byte_level, post_processor=None, decoder=byte_level,
                    model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                               end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False,
                               vocab=self.vocab, merges=[" ".join(m) for m in self.merges]))


@dataclass(frozen=True)
class Shape:
    """The size of an instance: the number of documents, the most tokens of a document, the facts of each kind."""
    documents: int
    tokens_max: int
    facts: int


@dataclass
class Sentence:
    """A fact, or filler. `value` is the index of the token that says something about an owner. The auxiliary losses read
    the owner from that token: `owner`, which the sentence itself names, after the first block, and `true_owner`, which
    the sentence `binding` tells, after the second block."""
    ids: list[int]
    value: int = 0
    owner: int | None = None
    true_owner: int | None = None
    binding: Sentence | None = None  # the sentence that declares the alias in this one
    binds: bool = False              # whether this sentence declares an alias


@dataclass
class Question:
    """A question. `source` is the fact with the answer; `via` is the fact that leads to `source`."""
    task: str
    ids: list[int]
    answer: int
    subject: int
    source: Sentence
    via: Sentence | None = None
    person: int | None = None


@dataclass
class Instance:
    documents: list[list[Sentence]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


class Generator:
    """Draws instances. The same state of `rng` gives the same instance."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.t = tokenizer
        self.filler = [tokenizer.word[w] for w in FILLER]

    def _place(self, rng: random.Random, used: list[int], candidates: list[int], size: int, limit: int) -> int:
        fitting = [c for c in candidates if used[c] + size <= limit]
        chosen = rng.choice(fitting or candidates)
        used[chosen] += size
        return chosen

    def draw(self, shape: Shape, rng: random.Random) -> Instance:
        ids, n, docs = self.t.ids, shape.facts, shape.documents
        vaults, codes = rng.sample(VAULTS, 3 * n), rng.sample(CODES, 2 * n)
        aliases, people, rooms = rng.sample(ALIASES, n), rng.sample(PEOPLE, n), rng.sample(ROOMS, n)
        word = self.t.word
        instance = Instance([[] for _ in range(docs)])
        used = [1] * docs

        def put(candidates: list[int], sentence: Sentence) -> int:
            chosen = self._place(rng, used, candidates, len(sentence.ids), shape.tokens_max)
            instance.documents[chosen].append(sentence)
            return chosen

        everywhere = list(range(docs))
        for vault, alias, code in zip(vaults[:n], aliases, codes):
            declare = Sentence(ids(f"The name {alias} means vault {vault} ."), 5, word[alias], binds=True)
            at = put(everywhere[:-1], declare)
            fact = Sentence(ids(f"The code of {alias} is {code} ."), 5, word[alias], word[vault], declare)
            put(everywhere[at + 1:], fact)
            instance.questions.append(Question("binding", ids(f"<q> What is the code of vault {vault} ?"), word[code],
                                               word[vault], fact))
        for vault, person, room in zip(vaults[n:2 * n], people, rooms):
            holds = Sentence(ids(f"The key of vault {vault} is held by {person} ."), 8, word[vault])
            at = put(everywhere, holds)
            works = Sentence(ids(f"{person} works in room {room} ."), 4, word[person])
            put([c for c in everywhere if c != at], works)
            question = ids(f"<q> In which room is the holder of the key of vault {vault} ?")
            instance.questions.append(Question("twohop", question, word[room], word[vault], works, holds, word[person]))
        for vault, code in zip(vaults[2 * n:], codes[n:]):
            fact = Sentence(ids(f"The code of vault {vault} is {code} ."), 6, word[vault], word[vault])
            put(everywhere, fact)
            instance.questions.append(Question("recall", ids(f"<q> What is the code of vault {vault} ?"), word[code],
                                               word[vault], fact))
        self._fill(instance, used, shape, rng)
        rng.shuffle(instance.questions)
        return instance

    def _fill(self, instance: Instance, used: list[int], shape: Shape, rng: random.Random) -> None:
        """Adds filler sentences up to a random length, and puts fillers and facts in random order."""
        for c, sentences in enumerate(instance.documents):
            low = max(16, min(used[c], shape.tokens_max))
            room = rng.randint(low, max(low, shape.tokens_max)) - used[c]
            while room >= 4:
                size = min(room, rng.randint(4, 9))
                room -= size
                sentences.append(Sentence([rng.choice(self.filler) for _ in range(size - 1)] + [self.t.word["."]]))
            rng.shuffle(sentences)

    def document_ids(self, sentences: list[Sentence]) -> list[int]:
        return [self.t.word["<doc>"], *(i for s in sentences for i in s.ids)]

    def document_text(self, sentences: list[Sentence]) -> str:
        return self.t.decode(self.document_ids(sentences))
