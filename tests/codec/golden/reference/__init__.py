"""A decoder of stored objects that was written from docs/formats.md alone.

It shares no code with codec/, so it shows that the document suffices to read what KDN
stores. It needs nothing but Python, and favours clear code over speed. Where a docstring
gives a section in quotes, the code does what that section of docs/formats.md says.

    stored = reference.parse_object(data)
    rows = reference.decode(stored, reference.Level.BASE2, stored.header.positions)

KDN's own decoders refuse objects with several RoPEs, or with different head_dims of K and
V. This decoder reads them too.
"""

from .calibration import CalibrationFile, parse_calibration
from .decoder import decode
from .errors import DataLoss, FailedPrecondition, Unimplemented
from .fixed_fields import Level, Part
from .header import Header
from .stored_object import StoredObject, StreamId, parse_object

__all__ = [
    "CalibrationFile",
    "DataLoss",
    "FailedPrecondition",
    "Header",
    "Level",
    "Part",
    "StoredObject",
    "StreamId",
    "Unimplemented",
    "decode",
    "parse_calibration",
    "parse_object",
]
