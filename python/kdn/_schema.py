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
}
DURABILITIES: dict[str, int] = dict(wire.Durability.schema.enumerants)
