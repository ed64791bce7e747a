"""What can go wrong, sorted by what the caller should do about it.

Every error of the KDN is a `KdnError`; `code` is the name of the status code in
kdn.capnp. Where Python has an exception for the same thing the class is also one
of those, so ``except TimeoutError`` works too.
"""

from __future__ import annotations


class KdnError(Exception):
    """Base of all errors of this package."""

    code = "unknown"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


class InvalidArgument(KdnError, ValueError):
    """The call makes no sense: fix it."""

    code = "invalidArgument"


class OutOfRange(InvalidArgument):
    """A position or range is outside of what there is."""

    code = "outOfRange"


class NotFound(KdnError, LookupError):
    """Nobody holds the chunk: recompute it."""

    code = "notFound"


class AlreadyExists(KdnError):
    """It is there already."""

    code = "alreadyExists"


class DeadlineExceeded(KdnError, TimeoutError):
    """It took too long; a store may have been done all the same."""

    code = "deadlineExceeded"


class Cancelled(KdnError):
    """Nobody wanted it any more."""

    code = "cancelled"


class ResourceExhausted(KdnError):
    """A budget is used up: back off, then try again."""

    code = "resourceExhausted"


class FailedPrecondition(KdnError):
    """What this client or its node knows does not fit: a stale client connects and opens
    again; a chunk whose calibration the node has not got is to be had at another one."""

    code = "failedPrecondition"


class Unavailable(KdnError, ConnectionError):
    """The node does not answer: try another one."""

    code = "unavailable"


class Disconnected(Unavailable):
    """The connection broke: connect again, to another node."""


class DataLoss(KdnError):
    """The copy was damaged and has been dropped."""

    code = "dataLoss"


class PermissionDenied(KdnError, PermissionError):
    """Not allowed."""

    code = "permissionDenied"


class Unimplemented(KdnError, NotImplementedError):
    """The node is older than this client, or the model has what nobody here can do."""

    code = "unimplemented"


class Internal(KdnError):
    """A bug of the node."""

    code = "internal"


_BY_CODE: dict[str, type[KdnError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        OutOfRange,
        NotFound,
        AlreadyExists,
        DeadlineExceeded,
        Cancelled,
        ResourceExhausted,
        FailedPrecondition,
        Unavailable,
        DataLoss,
        PermissionDenied,
        Unimplemented,
        Internal,
    )
}


def error_of(code: str, message: str) -> KdnError:
    """The exception of a status; `KdnError` itself for a code without a class."""
    kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(message)
    error = KdnError(message)
    error.code = code
    return error
