"""Hugging Face Transformers served by the KDN.

    kb = KnowledgeBase(model, tokenizer)
    kb.add("handbook", text)
    kb.generate("When is the office open?", knowledge=["handbook"]).text

A named text is prefilled once, by whichever engine comes first; its KV is kept by the
cluster, and every engine with the same model and tokenizer continues behind it. What
the cluster cannot deliver is prefilled: an answer never fails for want of the KDN, and
is the same with and without it at level "lossless".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from .client import DEFAULT_ADDRESS
from .errors import InvalidArgument
from .failover import Failover
from .huggingface import cache_of, kv_of, length_of, prefill, spec_of
from .keys import Chunk
from .knowledge import Knowledge
from .types import Found, leading


@dataclass(frozen=True)
class Added:
    """A text that the cluster holds now. `stored`: chunks that it did not hold before."""

    name: str
    tokens: int
    chunks: int
    stored: int


@dataclass(frozen=True)
class Generated:
    """An answer, and where its prompt's KV came from.

    `delivered_tokens` came from the cluster, `prefilled_tokens` were computed here;
    `sources` are the nodes that served. Times are in seconds.
    """

    text: str
    tokens: list[int]
    delivered_tokens: int
    prefilled_tokens: int
    sources: tuple[str, ...]
    time_to_first_token: float


@dataclass
class _Prompt:
    """A prompt whose head is knowledge: `tokens[:known]` of named texts, in order."""

    tokens: list[int]
    known: int
    first: int  # tokens of the first text


@dataclass
class _Delivered:
    cache: Any = field(default_factory=DynamicCache)
    tokens: int = 0
    sources: tuple[str, ...] = ()


class _FirstLogits(LogitsProcessor):
    """Notes when the logits of the first token are there."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.at = self.at or time.perf_counter()
        return scores


class KdnCache:
    """Prefix KV of one model in a cluster: takes it out of caches, puts it into them.

    `addresses`: nodes to connect to; the first that answers is used, when it dies the
    next. Unavailable when none answers at first; later a cluster that is away holds
    and finds nothing, which raises nothing. Not for several threads at once, as the
    model itself.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        namespace: str = "default",
        weights_digest: str | None = None,
        levels: Sequence[str] | None = None,
        accept: Sequence[str] | None = None,
        durability: str = "replicated",
        timeout: float = 10.0,
    ) -> None:
        self.spec = spec_of(model, tokenizer, weights_digest)
        self._device = model.device
        self._cluster = Failover(addresses, namespace, self.spec, "kdn.transformers")
        self._store_options: dict[str, Any] = {"levels": levels, "durability": durability}
        self._accept = accept
        self._timeout = timeout
        self._cluster.connect()

    def fetch(self, chains: Sequence[Sequence[Chunk]]) -> _Delivered:
        """A cache with the longest prefix that the cluster delivers of any chain."""
        return self._cluster.attempt(
            "fetching a prefix", lambda knowledge: self._fetch(knowledge, chains), _Delivered()
        )

    def _fetch(self, knowledge: Knowledge, chains: Sequence[Sequence[Chunk]]) -> _Delivered:
        found = knowledge.lookup([chunk for chain in chains for chunk in chain], self._timeout)
        best: Sequence[Chunk] = []
        for chain in chains:
            hits, found = found[: len(chain)], found[len(chain) :]
            held = leading(hit.delivers(self._accept) for hit in hits)
            if held and (not best or chain[held - 1].end > best[-1].end):
                best = chain[:held]
        if not best:
            return _Delivered()
        parts, sources, tokens = [], dict[str, None](), 0
        for got in knowledge.retrieve_prefix(best, accept=self._accept, timeout=self._timeout):
            parts.append(got.torch()[:, :, :, : got.prefix_tokens])
            sources |= dict.fromkeys(outcome.source for outcome in got.outcomes[: got.prefix_chunks])
            tokens += got.prefix_tokens
        if tokens == 0:
            return _Delivered()
        kv = parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
        return _Delivered(cache_of(kv, self._device), tokens, tuple(sources))

    def missing(self, chain: Sequence[Chunk]) -> list[Chunk]:
        """The chunks of `chain` that nobody holds; all of them when nobody can say."""
        nothing: list[Found] = []
        found = self._cluster.attempt("looking chunks up", lambda k: k.lookup(chain, self._timeout), nothing)
        held = {chunk.key for chunk, hit in zip(chain, found) if hit.hit}
        return [chunk for chunk in chain if chunk.key not in held]

    def store(self, chunks: Sequence[Chunk], cache: Any) -> int:
        """Stores `chunks` out of a cache that holds their text at their positions.
        How many are held now."""
        return sum(self._store(chunk, kv_of(cache, chunk.begin, chunk.end)) for chunk in chunks)

    def _store(self, chunk: Chunk, kv: Any) -> bool:
        def store(knowledge: Knowledge) -> bool:
            knowledge.store(chunk, kv, timeout=self._timeout, **self._store_options)
            return True

        return self._cluster.attempt("storing a chunk", store, False)

    def chain(self, tokens: Sequence[int]) -> list[Chunk]:
        """`tokens` cut into chunks, as every client cuts them."""
        return self._cluster.chain(tokens)

    @property
    def cluster(self) -> Failover:
        """The connection in use."""
        return self._cluster

    def close(self) -> None:
        """Ends the session with the cluster. What is stored stays."""
        self._cluster.close()


class KnowledgeBase:
    """Named texts that a model answers behind. See the module's text for an example.

    Every text is one prefix: several named texts behind one question are served as far
    as they were stored in that very order, and are prefilled (and then stored) where
    they were not.
    """

    def __init__(self, model: Any, tokenizer: Any, addresses: str | Sequence[str] = DEFAULT_ADDRESS, **options: Any):
        """`options` are those of `KdnCache`."""
        self.model = model
        self.tokenizer = tokenizer
        self.kdn = KdnCache(model, tokenizer, addresses, **options)
        self._texts: dict[str, list[int]] = {}

    def tokens_of(self, text: str, begins: bool) -> list[int]:
        """Token ids of one part of a prompt. Only what begins a prompt gets the special
        tokens that the tokenizer puts in front (BOS); none gets those it puts behind."""
        bare = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not begins:
            return bare
        whole = self.tokenizer(text)["input_ids"]
        in_front = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare) if bare else 0
        return whole[:in_front] + bare

    def add(self, name: str, text: str) -> Added:
        """Registers `text` and makes sure that the cluster holds its KV."""
        tokens = self.tokens_of(text, begins=True)
        if not tokens:
            raise InvalidArgument(f"text {name!r} is empty")
        self._texts[name] = tokens
        chain = self.kdn.chain(tokens)
        missing = self.kdn.missing(chain)
        stored = 0
        if missing:
            delivered = self.kdn.fetch([chain])
            # What is behind the last missing chunk needs no KV computed.
            prefill_chunks(self.model, tokens[: missing[-1].end], delivered.cache)
            stored = self.kdn.store(missing, delivered.cache)
        return Added(name, len(tokens), len(chain), stored)

    def _prompt(self, question: str, knowledge: Sequence[str]) -> _Prompt:
        unknown = [name for name in knowledge if name not in self._texts]
        if unknown:
            raise InvalidArgument(f"no text was added as {unknown[0]!r}; there are {', '.join(self._texts) or 'none'}")
        head = [token for name in knowledge for token in self._texts[name]]
        first = len(self._texts[knowledge[0]]) if knowledge else 0
        tail = self.tokens_of(question, begins=not head)
        if not tail:
            raise InvalidArgument("the question is empty")
        return _Prompt(head + tail, len(head), first)

    def generate(
        self, question: str, knowledge: Sequence[str] = (), *, use_kdn: bool = True, learn: bool = True, **options: Any
    ) -> Generated:
        """Answers `question` behind the texts named, in their order.

        `use_kdn=False` prefills all of it, for comparison. `learn`: what had to be
        prefilled of the texts is stored for the next time, after the answer. `options`
        go to the model's generate.
        """
        prompt = self._prompt(question, knowledge)
        begin = time.perf_counter()
        chain = self.kdn.chain(prompt.tokens[: prompt.known]) if use_kdn else []
        delivered = self._deliver(prompt, chain)
        ids = torch.tensor([prompt.tokens], device=self.model.device)
        first = _FirstLogits()
        answer = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=delivered.cache,
            logits_processor=LogitsProcessorList([first]),
            **{"do_sample": False, "pad_token_id": 0, **options},
        )
        tokens = answer[0, len(prompt.tokens) :].tolist()
        if learn and chain and delivered.tokens < prompt.known:
            self.kdn.store([c for c in chain if c.end > delivered.tokens], delivered.cache)
        return Generated(
            text=self.tokenizer.decode(tokens, skip_special_tokens=True),
            tokens=tokens,
            delivered_tokens=delivered.tokens,
            prefilled_tokens=len(prompt.tokens) - delivered.tokens,
            sources=delivered.sources,
            time_to_first_token=first.at - begin,
        )

    def _deliver(self, prompt: _Prompt, chain: Sequence[Chunk]) -> _Delivered:
        if not chain:
            return _Delivered()
        # The first text alone ends in a chunk of its own, unlike in a longer prefix.
        chains = [chain]
        if prompt.first < prompt.known:
            chains.append(self.kdn.chain(prompt.tokens[: prompt.first]))
        return self.kdn.fetch(chains)

    def close(self) -> None:
        """Ends the session with the cluster. What is stored stays."""
        self.kdn.close()

    def __enter__(self) -> KnowledgeBase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prefill_chunks(model: Any, tokens: Sequence[int], cache: Any, step: int = 1024) -> None:
    """Prefills what `cache` does not hold of `tokens`, some at a time: the attention
    of a long text takes memory with the square of a step."""
    for begin in range(length_of(cache), len(tokens), step):
        prefill(model, tokens[begin : begin + step], cache)
