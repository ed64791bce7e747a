"""The errors of this package. Each class tells the caller what to do.

Every error is a `KdnError`; its `code` is the name of the status code in kdn.capnp.
A class for which Python has an exception also derives from that exception, so
``except TimeoutError`` works too.
"""

from __future__ import annotations


class KdnError(Exception):
    """Base of all errors of this package."""

    code = "unknown"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


class InvalidArgument(KdnError, ValueError):
    """The call is wrong: fix it."""

    code = "invalidArgument"


class OutOfRange(InvalidArgument):
    """A position or range is out of bounds."""

    code = "outOfRange"


class NotFound(KdnError, LookupError):
    """No node holds the chunk: recompute it."""

    code = "notFound"


class AlreadyExists(KdnError):
    """The object exists already."""

    code = "alreadyExists"


class DeadlineExceeded(KdnError, TimeoutError):
    """The call took too long. A store may have succeeded all the same."""

    code = "deadlineExceeded"


class Cancelled(KdnError):
    """The call was cancelled."""

    code = "cancelled"


class ResourceExhausted(KdnError):
    """A budget is used up: back off, then try again."""

    code = "resourceExhausted"


class FailedPrecondition(KdnError):
    """The state of client or node does not allow the call. A client whose session is over
    connects and opens again. A chunk whose calibration the node lacks may be delivered by
    another node."""

    code = "failedPrecondition"


class Unavailable(KdnError, ConnectionError):
    """The node does not answer: try another one."""

    code = "unavailable"


class Disconnected(Unavailable):
    """The connection broke: connect again, to another node."""


class DataLoss(KdnError):
    """A copy is damaged: compute the KV again."""

    code = "dataLoss"


class PermissionDenied(KdnError, PermissionError):
    """The caller may not do this."""

    code = "permissionDenied"


class Unimplemented(KdnError, NotImplementedError):
    """The node is too old for the call or for the chunk's format, or the KDN does not
    support this kind of model."""

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
