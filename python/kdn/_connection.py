"""One connection and its session. All of this runs on the loop's thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import capnp

from ._schema import PROTOCOL_VERSION, code_of, wire
from .errors import (
    DeadlineExceeded,
    Disconnected,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Unavailable,
    error_of,
)
from .keys import golden_vectors
from .types import NodeInfo

# A gateway answers by the deadline of a call. The client waits this much longer.
_GRACE_S = 0.1
_TLS = "tls://"
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


@dataclass(frozen=True)
class _Address:
    """A gateway's address, parsed. `path` is that of a Unix socket, else empty."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @classmethod
    def of(cls, text: str) -> _Address:
        if text.startswith("unix:"):
            return cls(text, path=text.removeprefix("unix:"))
        host, colon, port = text.removeprefix(_TLS).rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not bare or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InvalidArgument(
                f"address {text!r}: expected unix:/path, host:port, [IPv6]:port, or tls:// before one of the last two"
            )
        return cls(text, host=bare, port=int(port), tls=text.startswith(_TLS))

    @property
    def of_other_kind(self) -> str:
        """The address of the same port with TLS if this one has none, and without it if it has."""
        return self.text.removeprefix(_TLS) if self.tls else _TLS + self.text


def _context(address: _Address, ca: str | None) -> ssl.SSLContext | None:
    """The context for a gateway with TLS. It trusts the authorities in the file `ca` alone."""
    if not address.tls:
        return None
    path = ca or os.environ.get("KDN_CA")
    if not path:
        raise InvalidArgument(
            f"cannot connect to {address.text}: TLS needs the certificate of the cluster's authority "
            "(ca.pem of `kdn certs`): give its path as ca= or in KDN_CA"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise InvalidArgument(f"ca {path}: {error}: expected certificates in PEM") from None
    except OSError as error:
        raise InvalidArgument(f"ca {path}: {error.strerror or error}") from None
    return context


def _connect(address: _Address, timeout: float) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(timeout)
        connected.connect(address.path)
    except BaseException:
        connected.close()
        raise
    return connected


async def _open_socket(address: _Address, timeout: float) -> socket.socket:
    try:
        return await asyncio.to_thread(_connect, address, timeout)
    except PermissionError as error:
        raise Unavailable(
            f"cannot connect to {address.text}: {error}: run as the user of the node, or as a member of the "
            "gateway_socket_group of its configuration"
        ) from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {address.text}: {error}: is the cluster up?") from None


async def _secure(address: _Address, connected: socket.socket, context: ssl.SSLContext, timeout: float) -> Any:
    """The stream under TLS, after the handshake."""
    opening = capnp.AsyncIoStream.create_connection(sock=connected, ssl=context, server_hostname=address.host)
    try:
        return await asyncio.wait_for(opening, timeout)
    except ssl.SSLCertVerificationError as error:
        raise FailedPrecondition(
            f"cannot connect to {address.text}: its certificate is refused: {error.verify_message}"
        ) from None
    except asyncio.TimeoutError:
        raise Unavailable(f"cannot connect to {address.text}: no TLS handshake within {timeout} s") from None
    except OSError as error:  # ssl.SSLError is one
        raise Unavailable(
            f"cannot connect to {address.text}: no TLS handshake: {error}. If this gateway does not use TLS, dial "
            f"{address.of_other_kind}"
        ) from None


# The open connections. This set keeps each one alive until `close` runs on the loop's
# thread, because a user may drop the last other reference on any thread.
_opened: set[Connection] = set()


class Connection:
    """A session with one node. `close` ends the session and its pins."""

    def __init__(self, address: str, ca: str | None = None) -> None:
        self.address = address
        self._ca = ca
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
        address = _Address.of(self.address)
        context = _context(address, self._ca)
        deadline = Deadline(timeout)
        self._socket = await _open_socket(address, timeout)
        _opened.add(self)
        try:
            if context is not None:
                self._stream = await _secure(address, self._socket, context, deadline.left())
            elif address.path:
                self._stream = await capnp.AsyncIoStream.create_unix_connection(sock=self._socket)
            else:
                self._stream = await capnp.AsyncIoStream.create_connection(sock=self._socket)
            self._client = capnp.TwoPartyClient(self._stream)
            await self._greet(address, name, timeout)
        except BaseException:
            self.close()
            raise
        return self

    async def _greet(self, address: _Address, name: str, timeout: float) -> None:
        try:
            await self._hello(name, timeout)
        except (Disconnected, Internal) as error:
            if address.path or address.tls:
                raise
            raise Disconnected(f"{error}. If this gateway accepts only TLS, dial {address.of_other_kind}") from None

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
