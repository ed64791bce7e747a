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
from .extents import Extents

_FETCH_TIMEOUT_S = 2.0
_PAGE = 4096
# A region has room for many calls, because a node limits the regions of a session. Each
# region doubles the memory of the connection, from the first size to the last. Larger
# arrays get a region of their own.
_FIRST_REGION_BYTES = 8 << 20
_REGION_BYTES = 64 << 20
# A region without arrays is kept for the next call, because new pages take time: regions
# of at most _SPARE_BYTES together (one may be larger), for at most SPARE_S seconds.
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
        self.free = Extents(len(data))
        self.spoiled = False  # the node may still use a part, so no more parts are given out
        self.since = 0.0  # monotonic time when the last part came back


class Part:
    """A part of a region, for the arrays of one call."""

    def __init__(self, region: Region, offset: int, size: int) -> None:
        self.region = region
        self.offset = offset
        self.size = size

    @property
    def number(self) -> int:
        return self.region.number

    def spoil(self) -> None:
        """Says that the node may still use the part after its arrays are gone."""
        self.region.spoiled = True


class _Lease:
    """The base object of all arrays over a part. It goes when the last of these arrays
    goes; then the part is free for the next call."""

    def __init__(self, part: Part, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        flat = np.frombuffer(part.region.data, dtype=np.uint8)
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (flat.ctypes.data + part.offset, False),
            "version": 3,
        }
        self._flat = flat


class Memory:
    """The regions of one connection, and the parts of them that are free. Thread-safe."""

    def __init__(self, loop: Loop, connection: Connection) -> None:
        self._pid = os.getpid()
        self._loop = loop
        self._connection = connection
        # Finalizers must not take the lock: they may run while this thread holds it.
        self._lock = threading.Lock()
        self._returned: deque[Part] = deque()
        self._regions: list[Region] = []
        self._closed = False
        self._timer = False  # a look at spare regions is planned

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], timeout: float) -> tuple[Part, np.ndarray[Any, Any]]:
        """A part of shared memory and an array that fills it. The part is used again when no
        array over it is left. Raises ResourceExhausted beyond the node's limit, and NotShared
        when the node and this process cannot share memory at all. Raises
        FailedPrecondition in a forked child, because the parent may use the memory that
        is free in the child."""
        if os.getpid() != self._pid:
            raise FailedPrecondition("the connection belongs to the parent process: connect again")
        size = -(-max(int(np.prod(shape)) * dtype.itemsize, 1) // _PAGE) * _PAGE
        part = self._take(size) or self._take_of_new(size, timeout)
        lease = _Lease(part, shape, dtype)
        weakref.finalize(lease, self._give_back, part).atexit = False
        return part, np.asarray(lease)

    def _take(self, size: int) -> Part | None:
        """A part of a region that there is already: of the smallest extent that fits, so
        that large extents stay for large arrays."""
        self._settle()
        with self._lock:
            regions = [] if self._closed else self._regions
            fitting = [
                (smallest, region)
                for region in regions
                if not region.spoiled and (smallest := region.free.smallest(size)) is not None
            ]
            if not fitting:
                return None
            _, region = min(fitting, key=lambda each: each[0])
            return Part(region, region.free.take(size), size)

    def _take_of_new(self, size: int, timeout: float) -> Part:
        region = self._open_or_make_room(size, timeout)
        with self._lock:
            part = Part(region, region.free.take(size), size)
            self._regions.append(region)
            return part

    def _open_or_make_room(self, size: int, timeout: float) -> Region:
        with self._lock:
            held = sum(region.free.size for region in self._regions)
        roomy = min(max(held, _FIRST_REGION_BYTES), _REGION_BYTES)
        if size < roomy:
            with contextlib.suppress(ResourceExhausted):
                return self._open(roomy, timeout)
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
        path = self._desk_path(path)
        try:
            descriptor = _fetch_descriptor(path, ticket)
            try:
                return Region(number, mmap.mmap(descriptor, size))
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            self._loop.post(lambda: self._connection.drop(number))
            raise Unavailable(f"fetching shared memory from {path}: {error}") from None

    def _desk_path(self, of_node: str) -> str:
        """The path of the second socket as this process sees it. The node says where the
        socket is in its own file system, which a container may mount elsewhere."""
        address = self._connection.address
        return address.removeprefix("unix:") + ".fd" if address.startswith("unix:") else of_node

    async def _open_on_loop(self, size: int, timeout: float) -> tuple[int, str, bytes]:
        deadline = Deadline(timeout)
        session = self._connection.live_session()
        answer = await answer_of(session.openMemory(bytes=size), deadline.left(), "opening shared memory")
        check(answer.status)
        memory = answer.memory
        given = await answer_of(memory.ticket(), deadline.left(), "a ticket for shared memory")
        check(given.status)
        return self._connection.hold(memory), given.socket, bytes(given.ticket)

    def _give_back(self, part: Part) -> None:
        self._returned.append(part)
        self._loop.post(self._settle)

    def _settle(self) -> None:
        """Takes back the parts that were returned. Drops regions that nobody uses: those
        that are spoiled, too old, or too many to keep."""
        now = time.monotonic()
        with self._lock:
            while self._returned:
                part = self._returned.popleft()
                part.region.free.give_back(part.offset, part.size)
                part.region.since = now
            unused = [region for region in self._regions if region.free.whole]
            gone = [region for region in unused if self._closed or region.spoiled or now - region.since >= SPARE_S]
            spare = sorted((region for region in unused if region not in gone), key=lambda region: region.since)
            # The oldest are dropped first.
            while len(spare) > 1 and sum(region.free.size for region in spare) > _SPARE_BYTES:
                gone.append(spare.pop(0))
            self._regions = [region for region in self._regions if region not in gone]
            begins, self._timer = bool(spare) and not self._timer, self._timer or bool(spare)
        self._drop(gone)
        if begins:
            self._loop.post(self._look_again, SPARE_S + 0.1)

    def _look_again(self) -> None:
        with self._lock:
            self._timer = False
        self._settle()

    def _drop_spares(self) -> bool:
        """Drops all regions that nobody uses. Returns whether there were any."""
        self._settle()
        with self._lock:
            unused = [region for region in self._regions if region.free.whole]
            self._regions = [region for region in self._regions if region not in unused]
        self._drop(unused)
        return bool(unused)

    def _drop(self, regions: list[Region]) -> None:
        for region in regions:
            self._loop.post(functools.partial(self._connection.drop, region.number))

    def close(self) -> None:
        """No more arrays are given out. Regions go when their arrays have gone."""
        with self._lock:
            self._closed = True
        self._settle()
