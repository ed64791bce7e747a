"""A connection that moves from node to node. It raises nothing when the cluster is down,
because an engine without the KDN is slower but not broken."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from .client import Client
from .errors import (
    DeadlineExceeded,
    Disconnected,
    FailedPrecondition,
    InvalidArgument,
    KdnError,
    ResourceExhausted,
    Unavailable,
)
from .keys import Chunk, check_namespace, cut_chain, fingerprint_of
from .knowledge import Knowledge
from .model import ModelSpec

T = TypeVar("T")
_log = logging.getLogger("kdn")

RECONNECT_S = 1.0
RECONNECT_MAX_S = 30.0
"""After a cluster did not answer, the next attempt comes RECONNECT_S seconds later. Each
further pause is twice as long, up to RECONNECT_MAX_S seconds."""
_PATIENCE = 3
"""A connected node counts as away after this many calls in a row that it did not answer
in time, or refused because other nodes or room were missing."""


class Failover:
    """The knowledge of one model and tenant. It uses the first of `addresses` that
    answers, and the next address when that node dies. `ca` is that of `Client`.
    Thread-safe."""

    def __init__(
        self, addresses: str | Sequence[str], namespace: str, model: ModelSpec, name: str, ca: str | None = None
    ) -> None:
        check_namespace(namespace)
        self.model = model
        self.namespace = namespace
        self.fingerprint = fingerprint_of(model)
        self._addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if not self._addresses:
            raise InvalidArgument("no address of a node")
        self._name = name
        self._ca = ca
        self._disconnected()
        self._next = 0  # index of the address to try next
        self._failures = 0  # of the connected node, in a row
        self._pause = RECONNECT_S
        self._not_before = 0.0
        _all.add(self)

    def _disconnected(self) -> None:
        self._lock = threading.Lock()  # held while connecting; guards the two below
        self._client: Client | None = None
        self._knowledge: Knowledge | None = None

    def chain(self, tokens: Sequence[int]) -> list[Chunk]:
        """Cuts `tokens` into chunks, as every client does. Needs no connection."""
        return cut_chain(self.fingerprint, self.namespace, tokens)

    def connect(self) -> Knowledge:
        """The knowledge in use. Connects to the first address that answers if there is
        none. Raises Unavailable, with the reason of every address, when none answers."""
        with self._lock:
            return self._knowledge or self._connect()

    def _connect(self) -> Knowledge:
        refusals = []
        for _ in self._addresses:
            address = self._addresses[self._next]
            try:
                self._client, self._knowledge = self._open(address)
                self._failures = 0
                self._pause = RECONNECT_S
                return self._knowledge
            except InvalidArgument:
                self._wait()  # the next attempt makes the same mistake
                raise
            except KdnError as error:
                refusals.append(str(error) if address in str(error) else f"{address}: {error}")
                self._next = (self._next + 1) % len(self._addresses)
        self._wait()
        raise Unavailable("; ".join(refusals))

    def _wait(self) -> None:
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, RECONNECT_MAX_S)

    def _open(self, address: str) -> tuple[Client, Knowledge]:
        client = Client(address, name=self._name, ca=self._ca)
        try:
            return client, client.open(self.namespace, self.model)
        except BaseException:
            _close(client)
            raise

    def _live(self) -> Knowledge | None:
        """The knowledge in use. None while it is too early to connect again."""
        knowledge = self._knowledge
        if knowledge is not None:
            return knowledge
        with self._lock:
            if self._knowledge is None and time.monotonic() >= self._not_before:
                self._connect()
            return self._knowledge

    def shielded(self, what: str, use: Callable[[Knowledge], T], otherwise: T) -> T:
        """Like `attempt`, but raises nothing at all. It is for the threads of an engine,
        which an exception would end for good."""
        try:
            return self.attempt(what, use, otherwise)
        except InvalidArgument as error:
            _log.warning("%s: %s; going on without the KDN", what, error)
        except Exception:
            _log.exception("%s: a bug in the kdn package; going on without the KDN", what)
        return otherwise

    def attempt(self, what: str, use: Callable[[Knowledge], T], otherwise: T) -> T:
        """Returns the result of `use`, or `otherwise` when the cluster fails. A failure is
        logged and not raised; only InvalidArgument, a mistake of the caller, is raised."""
        knowledge = None
        try:
            knowledge = self._live()
            if knowledge is None:
                return otherwise
            result = use(knowledge)
            self._failures = 0
            return result
        except InvalidArgument:
            raise
        except KdnError as error:
            _log.warning("%s: %s; going on without the KDN", what, error)
            if knowledge is not None and self._is_away(error):
                self._forget(knowledge)
            return otherwise

    def _is_away(self, error: KdnError) -> bool:
        """Whether to leave the connected node because of `error`."""
        if isinstance(error, Disconnected | FailedPrecondition):
            return True
        if isinstance(error, DeadlineExceeded | Unavailable | ResourceExhausted):
            # One slow call, or one chunk that found too few nodes, does not mean that
            # the connected node is dead.
            self._failures += 1
            return self._failures >= _PATIENCE
        return False

    def _forget(self, knowledge: Knowledge) -> None:
        with self._lock:
            if self._knowledge is not knowledge:
                return  # another thread was faster
            client, self._client, self._knowledge = self._client, None, None
            self._next = (self._next + 1) % len(self._addresses)
            if self._next == 0:
                self._wait()  # every address has been tried
        _close(client)

    def close(self) -> None:
        """Ends the session with the cluster. Stored chunks stay."""
        with self._lock:
            client, self._client, self._knowledge = self._client, None, None
        _close(client)


def _close(client: Client | None) -> None:
    with contextlib.suppress(KdnError):  # when the loop has ended, so has the session
        if client is not None:
            client.close()


_all: weakref.WeakSet[Failover] = weakref.WeakSet()


def _begin_anew() -> None:
    # A forked child has neither its parent's connections nor the parent's threads, which
    # may hold the locks.
    for each in _all:
        each._disconnected()


os.register_at_fork(after_in_child=_begin_anew)
