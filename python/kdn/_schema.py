"""kdn.capnp, loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import capnp

# The package carries the standard imports (/capnp/c++.capnp) beside its own code.
_STANDARD = Path(capnp.__file__).parent.parent

wire: Any = capnp.load(str(Path(__file__).parent / "kdn.capnp"), imports=[str(_STANDARD)])
PROTOCOL_VERSION: int = wire.protocolVersion
LEVELS: dict[str, int] = {
    "lossless": 0,
    "int8": 1,
    "base": 2,
    "base+1": 3,
    "base+2": 4,
    "archive": 5,
}
DURABILITIES: dict[str, int] = dict(wire.Durability.schema.enumerants)


def _names(enum: Any) -> dict[int, str]:
    return {number: name for name, number in enum.schema.enumerants.items()}


# The names of the enumerants in an answer, by number. pycapnp gives no name for the number
# of a newer node. Level has names of its own.
CODES = _names(wire.Code)
TIERS = _names(wire.Tier)
OUTCOME_KINDS = _names(wire.OutcomeKind)
METRIC_TYPES = _names(wire.MetricType)


def code_of(status: Any) -> str:
    """The code of a wire status; "unknown" for a code of a newer node."""
    return CODES.get(status.code.raw, "unknown")
