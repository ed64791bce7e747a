"""Memory shared with the node. KV in it does not pass a socket."""

from __future__ import annotations

import array
import contextlib
import functools
import mmap
import os
import socket
import threading
import time
import weakref
from collections import deque
from typing import Any

import numpy as np

from ._connection import Connection, Deadline, answer_of, check
from ._loop import Loop
from .errors import (
    DeadlineExceeded,
    Disconnected,
    FailedPrecondition,
    InvalidArgument,
    KdnError,
    ResourceExhausted,
    Unavailable,
)

_FETCH_TIMEOUT_S = 2.0
_PAGE = 4096
# Free regions are kept for the next call, which saves making their pages again: at most
# _SPARE_MAX regions, at most _SPARE_BYTES together (one region may be larger), for at
# most SPARE_S seconds.
_SPARE_MAX = 4
_SPARE_BYTES = 256 << 20
SPARE_S = 10.0


def _fetch_descriptor(path: str, ticket: bytes) -> int:
    """The file descriptor for a ticket: see SharedMemory.ticket in kdn.capnp."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as desk:
        desk.settimeout(_FETCH_TIMEOUT_S)
        desk.connect(path)
        desk.sendall(ticket)
        _, control, _, _ = desk.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(array.array("i", data[:4])[0])
    raise Unavailable(f"{path} sent no file descriptor for a ticket")


class NotShared(Unavailable):
    """This process and the node cannot share memory. KV passes through the connection."""


class Region:
    """Shared memory of one connection. `number` is its capability's number in
    `Connection.hold`."""

    def __init__(self, number: int, data: mmap.mmap) -> None:
        self.number = number
        self.data = data
        self.size = len(data)
        self.spoiled = False  # the node may still use it: it must not be used again
        self.since = 0.0  # monotonic time when it became free


class _Lease:
    """The base object of all arrays over a region. It goes when the last of these arrays
    goes; then the region is free for the next call."""

    def __init__(self, region: Region, offset_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        flat = np.frombuffer(region.data, dtype=np.uint8)
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (flat.ctypes.data + offset_bytes, False),
            "version": 3,
        }
        self._flat = flat


class Memory:
    """The regions of one connection, and their reuse. Thread-safe."""

    def __init__(self, loop: Loop, connection: Connection) -> None:
        self._pid = os.getpid()
        self._loop = loop
        self._connection = connection
        # Finalizers must not take the lock: they may run while this thread holds it.
        self._lock = threading.Lock()
        self._returned: deque[Region] = deque()
        self._spare: list[Region] = []
        self._closed = False

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], timeout: float
    ) -> tuple[Region, np.ndarray[Any, Any]]:
        """A region and an array at its beginning. The region is used again when no array
        over it is left. Raises ResourceExhausted beyond the node's limit, and NotShared
        when the node and this process cannot share memory at all. Raises
        FailedPrecondition in a forked child, because the parent may use the regions that
        are free in the child."""
        if os.getpid() != self._pid:
            raise FailedPrecondition("the connection belongs to the parent process: connect again")
        size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        region = self._take(size) or self._open_or_make_room(-(-size // _PAGE) * _PAGE, timeout)
        lease = _Lease(region, 0, shape, dtype)
        weakref.finalize(lease, self._give_back, region).atexit = False
        return region, np.asarray(lease)

    def _take(self, size: int) -> Region | None:
        self._settle()
        with self._lock:
            fitting = [region for region in self._spare if size <= region.size <= 4 * size]
            if not fitting:
                return None
            region = min(fitting, key=lambda each: each.size)
            self._spare.remove(region)
            return region

    def _open_or_make_room(self, size: int, timeout: float) -> Region:
        try:
            return self._open(size, timeout)
        except ResourceExhausted:
            if not self._drop_spares():
                raise
        # The node frees the dropped regions first: calls of a connection keep their order.
        return self._open(size, timeout)

    def _open(self, size: int, timeout: float) -> Region:
        try:
            return self._open_shared(size, timeout)
        except (InvalidArgument, ResourceExhausted, DeadlineExceeded, Disconnected):
            raise
        except KdnError as error:
            if self._connection.session is None:
                raise  # the connection was closed
            raise NotShared(str(error)) from None

    def _open_shared(self, size: int, timeout: float) -> Region:
        number, path, ticket = self._loop.run(self._open_on_loop(size, timeout))
        try:
            descriptor = _fetch_descriptor(path, ticket)
            try:
                return Region(number, mmap.mmap(descriptor, size))
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            self._loop.post(lambda: self._connection.drop(number))
            raise Unavailable(f"fetching shared memory from {path}: {error}") from None

    async def _open_on_loop(self, size: int, timeout: float) -> tuple[int, str, bytes]:
        deadline = Deadline(timeout)
        session = self._connection.live_session()
        answer = await answer_of(session.openMemory(bytes=size), deadline.left(), "opening shared memory")
        check(answer.status)
        memory = answer.memory
        given = await answer_of(memory.ticket(), deadline.left(), "a ticket for shared memory")
        check(given.status)
        return self._connection.hold(memory), given.socket, bytes(given.ticket)

    def _give_back(self, region: Region) -> None:
        self._returned.append(region)
        self._loop.post(self._settle)

    def _settle(self) -> None:
        """Keeps some of the returned regions for later calls, and drops the others and
        those that are too old."""
        now = time.monotonic()
        with self._lock:
            back: list[Region] = []
            while self._returned:
                back.append(self._returned.popleft())
            gone = [region for region in back if self._closed or region.spoiled]
            for region in back:
                region.since = now
            self._spare += [region for region in back if region not in gone]
            gone += [region for region in self._spare if now - region.since >= SPARE_S]
            self._spare = [region for region in self._spare if region not in gone]
            # The oldest are dropped first: the newest fits the next call best.
            while len(self._spare) > _SPARE_MAX or (
                len(self._spare) > 1 and sum(region.size for region in self._spare) > _SPARE_BYTES
            ):
                gone.append(self._spare.pop(0))
            waits = bool(self._spare)
        self._drop(gone)
        if back and waits:
            self._loop.post(self._settle, SPARE_S + 0.1)

    def _drop_spares(self) -> bool:
        """Drops all free regions. Returns whether there were any."""
        self._settle()
        with self._lock:
            spare, self._spare = self._spare, []
        self._drop(spare)
        return bool(spare)

    def _drop(self, regions: list[Region]) -> None:
        for region in regions:
            self._loop.post(functools.partial(self._connection.drop, region.number))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, []
        for region in spare:
            with contextlib.suppress(BufferError):
                region.data.close()
