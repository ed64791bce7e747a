"""Decides what an engine with a paged KV cache loads and saves, and when. This is the
scheduler's side of a connector, without the engine.

Only whole chunks of a prompt are loaded and saved. Prompts with the same beginning go on
differently, so no other request would find the shorter chunk at the end of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .keys import CHUNK_TOKENS, Chunk
from .types import leading


@dataclass(frozen=True)
class Load:
    """Load the tokens [begin, end) of a request into its blocks. `chunks` cover these
    tokens; both bounds are block boundaries."""

    request: str
    chunks: tuple[Chunk, ...]
    begin: int
    end: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Save:
    """Store `chunks` out of a request's blocks. They are computed when this step ends."""

    request: str
    chunks: tuple[Chunk, ...]
    blocks: tuple[int, ...]


@dataclass
class _Request:
    chunks: list[Chunk]
    held: set[bytes] = field(default_factory=set)  # keys that the cluster holds
    blocks: list[int] = field(default_factory=list)
    looked_up: bool = False
    matched_end: int = 0
    own: bool = True  # none of its KV can be lossy
    promised: bool = False  # a load was planned and the request was not scheduled since


class PrefixPlan:
    """The requests of one engine. For one thread: the scheduler's.

    `chain` cuts tokens into chunks. `lookup` says of each chunk whether the cluster can
    deliver it; it returns None when the cluster does not answer. `block_size` is in
    tokens. `exact` says that all delivered KV is exact. Without `exact`, a request is
    saved only if it is computed from its first token on: KV computed behind lossy KV is
    lossy too, and so may be the KV in the engine's own prefix cache.
    """

    def __init__(
        self,
        chain: Callable[[Sequence[int]], list[Chunk]],
        lookup: Callable[[Sequence[Chunk]], list[bool] | None],
        block_size: int,
        exact: bool = True,
    ) -> None:
        self._chain = chain
        self._lookup = lookup
        self._block_size = block_size
        self._exact = exact
        self._requests: dict[str, _Request] = {}
        self._loads: dict[str, Load] = {}

    def matched(self, request: str, prompt: Sequence[int], computed: int) -> int:
        """The number of tokens, behind the first `computed` tokens, that the cluster can
        deliver. They end at a block boundary, and the last token of the prompt is always
        left to compute. Each call asks the cluster again. The result is 0 for a request
        that comes back after its load without being scheduled: its load delivered nothing,
        so it is computed instead of loaded again and again."""
        state = self._state(request, prompt)
        if not state.chunks or state.promised:
            return 0
        found = self._lookup(state.chunks)
        state.looked_up = found is not None
        if found is None:
            return 0
        state.held = {chunk.key for chunk, hit in zip(state.chunks, found) if hit}
        prefix = leading(found)
        state.matched_end = min(prefix * CHUNK_TOKENS, len(prompt) - 1) // self._block_size * self._block_size
        return max(state.matched_end - computed, 0)

    def allocated(self, request: str, blocks: Sequence[int], delivered: int) -> None:
        """The engine has reserved `blocks` for the request's tokens, from the first token
        on. It expects the last `delivered` of the tokens that `matched` counted."""
        state = self._requests.get(request)
        if state is None or delivered == 0:
            return
        end = state.matched_end
        begin = end - delivered
        chunks = tuple(c for c in state.chunks if c.end > begin and c.begin < end)
        state.promised = True
        self._loads[request] = Load(request, chunks, begin, end, tuple(blocks))

    def scheduled(
        self,
        request: str,
        computed: int,
        scheduled: int,
        blocks: Sequence[int],
        *,
        anew: bool,
    ) -> Save | None:
        """The step computes `scheduled` tokens behind the first `computed` tokens. With
        `anew` (the first time, or after a preemption), `blocks` are all blocks of the
        request; else they are the blocks added since the last call. Returns the chunks to
        store, or None."""
        state = self._requests.get(request)
        if state is None:
            return None  # `matched` was not called: the request is not loaded or saved
        state.promised = False
        if anew:
            state.own = self._exact or computed == 0
        state.blocks = list(blocks) if anew else state.blocks + list(blocks)
        done = computed + scheduled
        fresh = tuple(c for c in state.chunks if computed < c.end <= done and c.key not in state.held)
        if not fresh or not state.looked_up or not state.own:
            return None
        state.held.update(chunk.key for chunk in fresh)
        return Save(request, fresh, tuple(state.blocks))

    def take_loads(self) -> list[Load]:
        """The loads to begin now. Each load is returned once."""
        loads, self._loads = list(self._loads.values()), {}
        return loads

    def finished(self, request: str) -> None:
        """Forgets a request, and its load if `take_loads` has not returned the load yet."""
        self._requests.pop(request, None)
        self._loads.pop(request, None)

    def _state(self, request: str, prompt: Sequence[int]) -> _Request:
        if request not in self._requests:
            whole = len(prompt) // CHUNK_TOKENS * CHUNK_TOKENS
            self._requests[request] = _Request(self._chain(prompt[:whole]))
        return self._requests[request]
