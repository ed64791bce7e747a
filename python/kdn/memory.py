"""Memory that the node maps too: what it delivers there passes no socket."""

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
from .errors import FailedPrecondition, ResourceExhausted, Unavailable

_FETCH_TIMEOUT_S = 2.0
_PAGE = 4096
# Regions kept for the next call, so that their pages need not be made again: so many,
# so large together (one of any size is kept), so long.
_SPARE_MAX = 4
_SPARE_BYTES = 256 << 20
SPARE_S = 10.0


def _fetch_descriptor(path: str, ticket: bytes) -> int:
    """The descriptor that a ticket stands for: see SharedMemory.ticket in kdn.capnp."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as desk:
        desk.settimeout(_FETCH_TIMEOUT_S)
        desk.connect(path)
        desk.sendall(ticket)
        _, control, _, _ = desk.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(array.array("i", data[:4])[0])
    raise Unavailable(f"{path} gave no descriptor for a ticket")


class Region:
    """Shared memory of one connection. Its capability stays on the loop's thread."""

    def __init__(self, number: int, data: mmap.mmap) -> None:
        self.number = number
        self.data = data
        self.size = len(data)
        self.spoiled = False  # the node may still read or write there
        self.since = 0.0  # when it became spare


class _Lease:
    """What the arrays over a region rest on: when the last of them goes, so does this,
    and the region is free for the next call."""

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
    """The regions of one connection, reused. Thread-safe."""

    def __init__(self, loop: Loop, connection: Connection) -> None:
        self._pid = os.getpid()
        self._loop = loop
        self._connection = connection
        # Never taken by a finalizer, which may run inside of it.
        self._lock = threading.Lock()
        self._returned: deque[Region] = deque()
        self._spare: list[Region] = []
        self._closed = False

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], timeout: float
    ) -> tuple[Region, np.ndarray[Any, Any]]:
        """A region and an array at its beginning. The region is used again once no
        array over it is left. ResourceExhausted beyond what the node grants,
        FailedPrecondition in a forked child: what is spare here may be in use there."""
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
        # Calls of one connection keep their order: these are gone when the next comes.
        return self._open(size, timeout)

    def _open(self, size: int, timeout: float) -> Region:
        number, path, ticket = self._loop.run(self._open_on_loop(size, timeout))
        try:
            descriptor = _fetch_descriptor(path, ticket)
            try:
                return Region(number, mmap.mmap(descriptor, size))
            finally:
                os.close(descriptor)
        except OSError as error:
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
        """Sorts what came back: some is kept for the next call, for a while."""
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
            # The oldest first: the newest fits the next call best.
            while len(self._spare) > _SPARE_MAX or (
                len(self._spare) > 1 and sum(region.size for region in self._spare) > _SPARE_BYTES
            ):
                gone.append(self._spare.pop(0))
            waits = bool(self._spare)
        self._drop(gone)
        if back and waits:
            self._loop.post(self._settle, SPARE_S + 0.1)

    def _drop_spares(self) -> bool:
        """Whether there were any."""
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
