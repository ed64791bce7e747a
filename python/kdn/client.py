"""Connections to a node: `Client` blocks, `AsyncClient` is for asyncio."""

from __future__ import annotations

import logging
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._calls import Calls
from ._connection import Connection, Deadline, answer_of, check, milliseconds
from ._loop import Loop, shared_loop
from ._status import status_of
from .errors import ResourceExhausted, Unimplemented
from .keys import check_namespace, fingerprint_of
from .knowledge import DEFAULT_TIMEOUT, AsyncKnowledge, Knowledge
from .memory import Memory, NotShared, Part
from .model import ModelSpec
from .types import Calibration, NodeInfo

DEFAULT_ADDRESS = "unix:/tmp/kdn-local-3-n1.sock"
"""The first node of `kdn up -c configs/local-3.yaml`."""
CONNECT_TIMEOUT = 2.0
"""Seconds."""
CALIBRATION_TIMEOUT = 60.0
"""Seconds, for storing a calibration on every node."""
_PART_BYTES = 4 << 20
_log = logging.getLogger("kdn")


def _fingerprint_of(model: ModelSpec | None) -> bytes:
    return fingerprint_of(model) if model is not None else b""


@dataclass(eq=False)
class Link:
    """A connection, for users on other threads. `memory` is None if this process and the
    node share no memory; KV then passes through the connection."""

    loop: Loop
    connection: Connection
    memory: Memory | None = None

    @classmethod
    async def open(cls, loop: Loop, address: str, name: str, timeout: float, ca: str | None) -> Link:
        connection = await Connection(address, ca).open(name, timeout)
        link = cls(loop, connection)
        if connection.node.memory_bytes_max > 0:
            link.memory = Memory(loop, connection)
        # Closes the connection of a client that nobody closes. At exit, the loop does so.
        weakref.finalize(link, loop.post, connection.close).atexit = False
        return link

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], timeout: float
    ) -> tuple[Part | None, np.ndarray[Any, Any]]:
        """A new array, in memory shared with the node if possible; else the part is None.
        If the node's limit is used up, only this call gets no part. After any other
        failure, which is logged, no later call tries to share memory."""
        memory = self.memory
        if memory is not None and math.prod(shape) > 0:
            try:
                return memory.array(shape, dtype, timeout)
            except ResourceExhausted:
                pass
            except NotShared as error:
                self._stop_sharing(memory, error)
        return None, np.empty(shape, dtype)

    def _stop_sharing(self, memory: Memory, why: NotShared) -> None:
        if self.memory is None:
            return  # another thread came first
        self.memory = None
        memory.close()
        node = self.connection.node.id
        _log.warning("cannot share memory with node %s, so KV passes the socket: %s", node, why)

    async def status(self, timeout: float) -> list[dict[str, Any]]:
        call = self.connection.live_session().status(deadlineMs=milliseconds(timeout))
        answer = await answer_of(call, timeout, "status of the cluster")
        check(answer.status)
        return [status_of(node) for node in answer.nodes]

    def _check_keeps_calibrations(self) -> None:
        if "calibrations" not in self.connection.node.features:
            node = self.connection.node.id
            raise Unimplemented(f"node {node} does not take calibrations from clients: update it")

    async def calibrations(self, model: bytes, timeout: float) -> list[Calibration]:
        self._check_keeps_calibrations()
        call = self.connection.live_session().calibrations(model=model, deadlineMs=milliseconds(timeout))
        answer = await answer_of(call, timeout, "listing calibrations")
        check(answer.status)
        return [
            Calibration(bytes(c.id).hex(), bytes(c.model).hex(), float(c.createdS), c.bytes, tuple(c.nodes))
            for c in answer.calibrations
        ]

    async def store_calibration(self, file: bytes, timeout: float) -> str:
        self._check_keeps_calibrations()
        deadline = Deadline(timeout)
        session = self.connection.live_session()
        call = session.storeCalibration(bytes=len(file), deadlineMs=milliseconds(timeout))
        begun = await answer_of(call, deadline.left(), "beginning to store a calibration")
        check(begun.status)
        upload = begun.upload
        for first in range(0, len(file), _PART_BYTES):
            part = upload.part(bytes=file[first : first + _PART_BYTES])
            check((await answer_of(part, deadline.left(), "storing a calibration")).status)
        answer = await answer_of(upload.commit(), deadline.left(), "storing a calibration")
        check(answer.status)
        return bytes(answer.id).hex()

    async def ping(self, timeout: float) -> None:
        check((await answer_of(self.connection.live_session().info(), timeout, "ping")).status)

    async def close(self) -> None:
        if self.memory is not None:
            self.memory.close()
        self.connection.close()


class _Base:
    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def node(self) -> NodeInfo:
        """The connected node and its limits."""
        return self._link.connection.node

    @property
    def session(self) -> int:
        """The id under which the cluster keeps this client's pins."""
        return self._link.connection.session_id

    @property
    def shares_memory(self) -> bool:
        """True: KV passes through memory shared with the node. False: through the socket."""
        return self._link.memory is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._link.connection.address!r}, node {self.node.id})"


class Client(_Base):
    """A blocking client. Thread-safe; a context manager.

    `address` is ``unix:/path/to/socket`` for a node on this host, else ``host:port``, or
    ``tls://host:port`` for a node that uses TLS. `ca` is the path of a PEM file with the
    authorities that may have signed the node's certificate (default: the environment
    variable KDN_CA). Raises Unavailable when nobody listens there, and FailedPrecondition
    when the node speaks another protocol version, computes other chunk keys, or has a
    certificate that is not trusted, has expired or does not name the host.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        name: str = "kdn-python",
        timeout: float = CONNECT_TIMEOUT,
        ca: str | None = None,
    ) -> None:
        loop = shared_loop()
        super().__init__(loop.run(Link.open(loop, address, name, timeout, ca)))

    def open(self, namespace: str, model: ModelSpec, timeout: float = DEFAULT_TIMEOUT) -> Knowledge:
        """Registers the model and opens the chunks of the tenant `namespace`."""
        check_namespace(namespace)
        calls = self._link.loop.run(Calls.open(self._link.connection, namespace, model, timeout))
        return Knowledge(self._link, calls, namespace, model)

    def status(self, timeout: float = DEFAULT_TIMEOUT) -> list[dict[str, Any]]:
        """The status of every node of the cluster, as in `kdn status --json`, without `calibrations`.
        `kdn status --explain` describes each metric."""
        return self._link.loop.run(self._link.status(timeout))

    def calibrations(self, model: ModelSpec | None = None, timeout: float = DEFAULT_TIMEOUT) -> list[Calibration]:
        """The calibrations of the cluster, or those of one model. Of one model, the first codes
        new chunks. Raises `Unimplemented` if the node is too old."""
        return self._link.loop.run(self._link.calibrations(_fingerprint_of(model), timeout))

    def store_calibration(self, file: bytes, timeout: float = CALIBRATION_TIMEOUT) -> str:
        """Stores a calibration, as `kdn codec calibrate -o FILE` writes it, on every live node.
        Returns its id. Storing it again is safe. Raises `DataLoss` for bytes that are not a
        calibration, `Unimplemented` if the node is too old."""
        return self._link.loop.run(self._link.store_calibration(file, timeout))

    def ping(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Makes an empty call. Raises when the node does not answer."""
        self._link.loop.run(self._link.ping(timeout))

    def close(self) -> None:
        """Ends the session and its pins. Idempotent."""
        self._link.loop.run(self._link.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Base):
    """Like `Client`, for asyncio with any event loop::

    async with await AsyncClient.connect(address) as client: ...
    """

    @classmethod
    async def connect(
        cls,
        address: str = DEFAULT_ADDRESS,
        *,
        name: str = "kdn-python",
        timeout: float = CONNECT_TIMEOUT,
        ca: str | None = None,
    ) -> AsyncClient:
        loop = shared_loop()
        return cls(await loop.wait(Link.open(loop, address, name, timeout, ca)))

    async def open(self, namespace: str, model: ModelSpec, timeout: float = DEFAULT_TIMEOUT) -> AsyncKnowledge:
        check_namespace(namespace)
        calls = await self._link.loop.wait(Calls.open(self._link.connection, namespace, model, timeout))
        return AsyncKnowledge(self._link, calls, namespace, model)

    async def status(self, timeout: float = DEFAULT_TIMEOUT) -> list[dict[str, Any]]:
        return await self._link.loop.wait(self._link.status(timeout))

    async def calibrations(self, model: ModelSpec | None = None, timeout: float = DEFAULT_TIMEOUT) -> list[Calibration]:
        return await self._link.loop.wait(self._link.calibrations(_fingerprint_of(model), timeout))

    async def store_calibration(self, file: bytes, timeout: float = CALIBRATION_TIMEOUT) -> str:
        return await self._link.loop.wait(self._link.store_calibration(file, timeout))

    async def ping(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        await self._link.loop.wait(self._link.ping(timeout))

    async def close(self) -> None:
        await self._link.loop.wait(self._link.close())

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
