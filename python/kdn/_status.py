"""Converts the status of a node to the form of `kdn status --json`."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from ._schema import METRIC_TYPES

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def _quantile(buckets: list[list[int]], q: float) -> int:
    """The largest value of the bucket with the quantile `q`; 0 if there are no values."""
    rank = math.ceil(q * sum(count for _, count in buckets))
    seen = 0
    for at_most, count in buckets:
        seen += count
        if seen >= rank:
            return at_most
    return 0


def _value_of(metric: Any) -> int | dict[str, Any]:
    if METRIC_TYPES.get(metric.type.raw) != "histogram":
        return int(metric.value)
    buckets = [[bucket.atMost, bucket.count] for bucket in metric.buckets]
    return {
        "count": sum(count for _, count in buckets),
        "sum": metric.value,
        **{name: _quantile(buckets, q) for name, q in _QUANTILES.items()},
        "buckets": buckets,
    }


def _metrics_of(node: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for metric in node.metrics:
        # No metric has a name that is not UTF-8; the other metrics of the node are shown.
        with contextlib.suppress(UnicodeDecodeError):
            metrics[metric.name] = _value_of(metric)
    return metrics


def status_of(node: Any) -> dict[str, Any]:
    """The fields of a wire NodeStatus, with the keys of `kdn status --json`. All metrics are
    under "metrics", so that no name of a newer node's metric collides with another key."""
    return {"id": node.id, "alive": node.alive, "gateway": node.gatewayAddress, "metrics": _metrics_of(node)}
