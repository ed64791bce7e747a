"""Stores pages of KV that the engine names itself (torch), such as the pages of SGLang's
HiCache.

A page's name says neither its tokens nor their positions. So only engines of the same
kind, page size and parallel layout find each other's pages, and K is stored with its
rotation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .digest import Digest
from .errors import Unimplemented
from .failover import Failover
from .generation import FIRST, new_generation, of_generation
from .keys import Chunk, chunk_key
from .knowledge import Knowledge
from .model import ModelSpec, RopeSpec
from .terms import EXACT, Terms
from .types import leading, names_of

_TO_CANONICAL = {
    # Per layout: the axes of a page that are (layers, 2, kv_heads, tokens, head_dim). The
    # comments show the shapes of the pages.
    "layer_first": (1, 0, 3, 2, 4),  # (2, layers, tokens, kv_heads, head_dim)
    "page_first": (2, 0, 3, 1, 4),  # (2, tokens, layers, kv_heads, head_dim)
    "page_first_direct": (1, 0, 3, 2, 4),  # (2, [1,] layers, tokens, kv_heads, head_dim)
    "page_head": (3, 0, 1, 2, 4),  # (2, [1,] kv_heads, tokens, layers, head_dim)
}


@dataclass(frozen=True)
class PageShape:
    """The shape of one rank's pages."""

    layers: int
    kv_heads: int
    head_dim: int
    tokens: int
    layout: str

    def __post_init__(self) -> None:
        if self.layout not in _TO_CANONICAL:
            raise Unimplemented(f"pages of layout {self.layout!r}: {', '.join(_TO_CANONICAL)} are supported")

    def canonical(self, page: Any) -> Any:
        """A view of `page` as (layers, 2, kv_heads, tokens, head_dim). `page` is flat or
        has the shape of its layout."""
        sizes = (self.layers, 2, self.kv_heads, self.tokens, self.head_dim)
        axes = _TO_CANONICAL[self.layout]
        shape = [0] * len(axes)
        for size, axis in zip(sizes, axes):
            shape[axis] = size
        if page.dim() == 1:
            page = page.view(shape)
        elif page.dim() == len(axes) + 1:
            page = page.squeeze(1)
        return page.permute(axes)


class PageStore:
    """The pages of one rank in a cluster. Thread-safe. After the constructor, nothing is
    raised: a page that cannot be stored is not stored, and a cluster that is down holds no
    pages. An engine calls from threads that an exception would end for good.

    `model` is the spec of the whole model; `shard` names the rank's part of it. `levels`
    are the levels to keep (default: "lossless"). If "lossless" is one of them, only
    "lossless" pages are loaded; else pages at any of `levels` are. A store of another
    `generation` has other pages. `ca` is that of `kdn.Client`.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        namespace: str,
        model: ModelSpec,
        shape: PageShape,
        shard: str,
        *,
        levels: str | Sequence[str] | None = None,
        durability: str = "replicated",
        timeout: float = 10.0,
        generation: str = FIRST,
        ca: str | None = None,
    ) -> None:
        # An engine does not tell behind which pages it computed a page. So a store that
        # keeps exact pages loads exact pages only: else it would store inexact KV as exact.
        accept = EXACT if not levels or "lossless" in names_of(levels) else levels
        self._terms = Terms(levels, accept, durability, timeout)
        self.shape = shape
        self._shard = shard
        # The rank's own geometry, without a rotation, because positions are unknown.
        part = replace(model, num_layers=shape.layers, num_kv_heads=shape.kv_heads, rope=RopeSpec(rotary_dim=0))

        def connect(generation: str) -> Failover:
            return Failover(addresses, namespace, of_generation(part, generation), "kdn.pages", ca)

        self._connect = connect
        self._cluster = self._connect(generation)
        self._cluster.attempt("connecting", lambda _: None, None)

    def of_new_generation(self) -> PageStore:
        """A store like this one that finds no page that is stored yet. It connects with its
        first call. Calls of this store that have begun go on with its own pages."""
        # This store's connection closes when the last call that uses it has ended. Closing
        # it here would wait for a thread that is connecting.
        other = copy.copy(self)
        other._cluster = self._connect(new_generation())
        return other

    def _chunks(self, knowledge: Knowledge, names: Sequence[str]) -> list[Chunk]:
        return [self._chunk(knowledge, name) for name in names]

    def _chunk(self, knowledge: Knowledge, name: str) -> Chunk:
        """The chunk that stores a page. Its variant holds the page's name, because the
        tokens are unknown."""
        variant = "page-" + Digest("kdn-page-1").text(name).text(self._shard).finish().hex()
        tokens = (0,) * self.shape.tokens
        key = chunk_key(knowledge.fingerprint, knowledge.namespace, tokens, variant=variant)
        return Chunk(key, tokens, variant=variant)

    def held(self, names: Sequence[str]) -> int:
        """How many pages the cluster holds before the first one that it does not hold."""

        def look(knowledge: Knowledge) -> int:
            found = knowledge.lookup(self._chunks(knowledge, names), self._terms.lookup_timeout)
            return leading(page.delivers(self._terms.accept) for page in found)

        return self._cluster.shielded("looking pages up", look, 0)

    def put(self, names: Sequence[str], pages: Sequence[Any]) -> list[bool]:
        """Stores pages, flat or shaped. Says of each page whether it is stored now."""
        return [self._put(name, page) for name, page in zip(names, pages)]

    def _put(self, name: str, page: Any) -> bool:
        def store(knowledge: Knowledge) -> bool:
            terms = self._terms
            chunk, kv = self._chunk(knowledge, name), self.shape.canonical(page)
            knowledge.store(chunk, kv, levels=terms.levels, durability=terms.durability, timeout=terms.timeout)
            return True

        return self._cluster.shielded("storing a page", store, False)

    def get(self, names: Sequence[str], pages: Sequence[Any]) -> list[bool]:
        """Fills `pages`, flat or shaped. Says of each page whether it was filled; the other
        pages are unchanged."""

        filled: list[bool] = []

        def deliver(knowledge: Knowledge) -> None:
            for group in knowledge.groups(self._chunks(knowledge, names)):
                got = knowledge.retrieve(group, accept=self._terms.accept, timeout=self._terms.timeout)
                kv = got.torch()
                for outcome, span in zip(got.outcomes, got.spans):
                    if outcome.hit:
                        self.shape.canonical(pages[len(filled)]).copy_(kv[:, :, :, span])
                    filled.append(outcome.hit)

        self._cluster.shielded("loading pages", deliver, None)
        return filled + [False] * (len(names) - len(filled))

    def close(self) -> None:
        """Ends the session with the cluster. Stored pages stay."""
        self._cluster.close()
