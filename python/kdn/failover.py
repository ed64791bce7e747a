"""What engines hold of a cluster: several addresses, and never an exception for a
cluster that is away. An engine without the KDN is slower, not broken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from .client import Client
from .errors import FailedPrecondition, InvalidArgument, KdnError, Unavailable
from .knowledge import Knowledge
from .model import ModelSpec

T = TypeVar("T")
_log = logging.getLogger("kdn")

RECONNECT_S = 1.0
"""A cluster that did not answer is asked again this much later at the earliest."""


class Failover:
    """The knowledge of one model and tenant at the first of `addresses` that answers,
    at the next one when it dies. Thread-safe."""

    def __init__(self, addresses: str | Sequence[str], namespace: str, model: ModelSpec, name: str) -> None:
        self.model = model
        self.namespace = namespace
        self._addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self._name = name
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._knowledge: Knowledge | None = None
        self._not_before = 0.0

    def connect(self) -> Knowledge:
        """The knowledge in use, else that of the first address that answers.
        Unavailable, naming every address, when none does."""
        with self._lock:
            if self._knowledge is not None:
                return self._knowledge
            refusals = []
            for address in self._addresses:
                try:
                    self._client, self._knowledge = self._open(address)
                    return self._knowledge
                except Unavailable as error:
                    refusals.append(str(error))
            self._not_before = time.monotonic() + RECONNECT_S
            raise Unavailable("; ".join(refusals))

    def _open(self, address: str) -> tuple[Client, Knowledge]:
        client = Client(address, name=self._name)
        try:
            return client, client.open(self.namespace, self.model)
        except BaseException:
            client.close()
            raise

    def attempt(self, what: str, use: Callable[[Knowledge], T], otherwise: T) -> T:
        """What `use` returns, or `otherwise` when the cluster cannot: said in the log,
        not raised. Only InvalidArgument passes: that is the caller's mistake."""
        if self._knowledge is None and time.monotonic() < self._not_before:
            return otherwise
        knowledge = None
        try:
            knowledge = self.connect()
            return use(knowledge)
        except InvalidArgument:
            raise
        except KdnError as error:
            _log.warning("%s: %s; going on without the KDN", what, error)
            if knowledge is not None and isinstance(error, Unavailable | FailedPrecondition):
                self._forget(knowledge)
            return otherwise

    def _forget(self, knowledge: Knowledge) -> None:
        with self._lock:
            if self._knowledge is not knowledge:
                return  # another thread was faster
            client, self._client, self._knowledge = self._client, None, None
            # At once: the next address may well answer.
            self._not_before = 0.0 if len(self._addresses) > 1 else time.monotonic() + RECONNECT_S
        if client is not None:
            client.close()

    @property
    def client(self) -> Client | None:
        """The connection in use, if any."""
        return self._client

    def close(self) -> None:
        """Ends the session with the cluster. What is stored stays."""
        with self._lock:
            client, self._client, self._knowledge = self._client, None, None
        if client is not None:
            client.close()
