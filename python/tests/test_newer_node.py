"""Values that only a newer node sends: docs/protocol.md, "Versions"."""

from __future__ import annotations

from typing import Any

import pytest

import kdn
from kdn._calls import found_of, outcome_of
from kdn._connection import check
from kdn._schema import wire

NEWER = 99


def outcome(**fields: Any) -> kdn.Outcome:
    return outcome_of(wire.ChunkOutcome.new_message(**fields).as_reader())


@pytest.mark.parametrize("fields", [{"kind": NEWER}, {"kind": "hit", "level": NEWER}])
def test_an_unknown_outcome_or_level_is_a_failure(fields: dict[str, Any]) -> None:
    result = outcome(**fields)
    assert result.kind == "failed"
    assert isinstance(result.why, kdn.Unimplemented)


def test_an_unknown_tier_is_memory() -> None:
    assert outcome(kind="hit", tier=NEWER).tier == "memory"
    assert found_of(wire.LookupResult.new_message(hit=True, tier=NEWER).as_reader()).tier == "memory"


def test_an_unknown_code_is_an_error() -> None:
    status = {"code": NEWER, "message": "new"}
    with pytest.raises(kdn.KdnError, match="new") as raised:
        check(wire.Status.new_message(**status).as_reader())
    assert raised.value.code == "unknown"
    result = outcome(kind="failed", why=status)
    assert result.kind == "failed"
    assert result.why is not None and result.why.code == "unknown"
