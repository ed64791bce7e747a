"""One connection and its session. All of this runs on the loop's thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable
from typing import Any

import capnp

from ._schema import PROTOCOL_VERSION, code_of, wire
from .errors import DeadlineExceeded, Disconnected, FailedPrecondition, InvalidArgument, Unavailable, error_of
from .keys import golden_vectors
from .types import NodeInfo

# A gateway answers by the deadline of a call. The client waits this much longer.
_GRACE_S = 0.1
_KINDS = {
    "OVERLOADED": "resourceExhausted",
    "UNIMPLEMENTED": "unimplemented",
    "FAILED": "internal",
}


def milliseconds(timeout: float) -> int:
    """The milliseconds of a timeout in seconds. InvalidArgument unless 1 ms to 10 min."""
    if not 0.001 <= timeout <= 600:
        raise InvalidArgument(f"a timeout of {timeout} s, expected 0.001 to 600")
    return max(1, int(timeout * 1000))


def ttl_milliseconds(ttl: float, least: float) -> int:
    """The milliseconds of a time to live in seconds. InvalidArgument unless it is
    `least` seconds to 30 days."""
    if not least <= ttl <= 30 * 24 * 3600:
        raise InvalidArgument(f"a time to live of {ttl} s, expected {least} to 30 days")
    return int(ttl * 1000)


class Deadline:
    """The end of an operation of several calls. InvalidArgument for a timeout that
    `milliseconds` refuses."""

    def __init__(self, timeout: float) -> None:
        milliseconds(timeout)
        self._at = time.monotonic() + timeout

    def left(self) -> float:
        """The seconds that are left, at least the shortest valid timeout."""
        return max(self._at - time.monotonic(), 0.001)


def check(status: Any) -> None:
    """Raises the error of a wire status; does nothing for "ok"."""
    code = code_of(status)
    if code != "ok":
        raise error_of(code, status.message)


async def answer_of(call: Awaitable[Any], timeout: float, what: str) -> Any:
    """The answer of a call. Raises a KdnError when the transport fails or no answer
    comes in time."""

    async def wait() -> Any:
        return await call

    try:
        return await asyncio.wait_for(wait(), timeout + _GRACE_S)
    except asyncio.TimeoutError:
        raise DeadlineExceeded(f"{what}: no answer within {timeout} s") from None
    except capnp.KjException as error:
        kind = _KINDS.get(str(getattr(error, "type", "")).upper())
        text = f"{what}: {error.description or error}"
        raise (error_of(kind, text) if kind else Disconnected(text)) from None


def _connect(address: str, timeout: float) -> socket.socket:
    if not address.startswith("unix:"):
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InvalidArgument(f"address {address!r}: expected unix:/path, host:port or [IPv6]:port")
        return socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), timeout)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(timeout)
        connected.connect(address.removeprefix("unix:"))
    except BaseException:
        connected.close()
        raise
    return connected


async def _open_socket(address: str, timeout: float) -> socket.socket:
    try:
        return await asyncio.to_thread(_connect, address, timeout)
    except PermissionError as error:
        raise Unavailable(
            f"cannot connect to {address}: {error}: run as the user of the node, or as a member of the "
            "gateway_socket_group of its configuration"
        ) from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {address}: {error}: is the cluster up?") from None


# The open connections. This set keeps each one alive until `close` runs on the loop's
# thread, because a user may drop the last other reference on any thread.
_opened: set[Connection] = set()


class Connection:
    """A session with one node. `close` ends the session and its pins."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.node: NodeInfo
        self.session: Any = None
        self.session_id = 0
        self._client: Any = None
        self._stream: Any = None
        self._socket: socket.socket | None = None
        # Capabilities that users on other threads refer to by these numbers.
        self._held: dict[int, Any] = {}
        self._next = 0

    async def open(self, name: str, timeout: float) -> Connection:
        self._socket = await _open_socket(self.address, timeout)
        open_stream = capnp.AsyncIoStream.create_connection
        if self._socket.family == socket.AF_UNIX:
            open_stream = capnp.AsyncIoStream.create_unix_connection
        self._stream = await open_stream(sock=self._socket)
        _opened.add(self)
        self._client = capnp.TwoPartyClient(self._stream)
        try:
            await self._hello(name, timeout)
        except BaseException:
            self.close()
            raise
        return self

    async def _hello(self, name: str, timeout: float) -> None:
        kdn = self._client.bootstrap().cast_as(wire.Kdn)
        vectors = [{"label": label, "key": key} for label, key in golden_vectors().items()]
        call = kdn.hello(protocolVersion=PROTOCOL_VERSION, clientName=name, goldenVectors=vectors)
        answer = await answer_of(call, timeout, f"saying hello to {self.address}")
        check(answer.status)
        if answer.protocolVersion != PROTOCOL_VERSION:
            raise FailedPrecondition(
                f"{self.address} speaks protocol version {answer.protocolVersion}, this client {PROTOCOL_VERSION}"
            )
        self.session = answer.session
        node = answer.node
        self.node = NodeInfo(
            id=node.id,
            software=node.software,
            chunks_per_call_max=node.chunksPerCallMax,
            message_bytes_max=node.messageBytesMax,
            memory_bytes_max=node.memoryBytesMax,
            stores_in_flight_max=node.storesInFlightMax,
            store_bytes_max=node.storeBytesMax,
            features=frozenset(node.features),
        )
        info = await answer_of(self.session.info(), timeout, "info")
        self.session_id = info.session

    def hold(self, capability: Any) -> int:
        """Keeps `capability` until `drop`. Returns its number, which any thread may hold."""
        self._next += 1
        self._held[self._next] = capability
        return self._next

    def held(self, number: int) -> Any:
        if number not in self._held:
            raise FailedPrecondition("the connection was closed: connect again")
        return self._held[number]

    def drop(self, number: int) -> None:
        self._held.pop(number, None)

    def live_session(self) -> Any:
        if self.session is None:
            raise FailedPrecondition("the connection was closed: connect again")
        return self.session

    def close(self) -> None:
        """Ends the session and closes the connection. Idempotent."""
        self._held.clear()
        self.session = None
        with contextlib.suppress(Exception):
            if self._client is not None:
                self._client.close()
        with contextlib.suppress(Exception):
            if self._socket is not None:
                # Closing alone would not end it: a forked child may hold it open too.
                self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.close()
        self._client = self._stream = self._socket = None
        _opened.discard(self)
