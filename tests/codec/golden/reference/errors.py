"""The errors of a reader. Their names are those of the statuses in docs/formats.md."""


class DataLoss(Exception):
    """The bytes break a rule of docs/formats.md."""


class Unimplemented(Exception):
    """The object is whole, but this decoder lacks something that it needs."""


class FailedPrecondition(Exception):
    """The object is whole, but its calibration is missing."""


def require(holds: bool, problem: str) -> None:
    """Raises DataLoss with this text unless the rule holds."""
    if not holds:
        raise DataLoss(problem)
