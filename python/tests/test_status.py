"""Tests the conversion of a node's status without a node."""

from typing import Any

from kdn._schema import wire
from kdn._status import status_of


def metric(name: str | bytes, kind: str | int, value: int, buckets: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    listed = [{"atMost": at_most, "count": count} for at_most, count in buckets]
    return {"name": name, "type": kind, "value": value, "buckets": listed}


def node(*metrics: dict[str, Any]) -> Any:
    message = wire.NodeStatus.new_message(id="n1", alive=True, gatewayAddress="host:1")
    for builder, fields in zip(message.init("metrics", len(metrics)), metrics):
        for name, value in fields.items():
            setattr(builder, name, value)
    return message.as_reader()


def metrics_of(*metrics: dict[str, Any]) -> dict[str, Any]:
    return status_of(node(*metrics))["metrics"]


def test_numbers_are_under_their_names() -> None:
    metrics = (metric("lookups", "counter", 3), metric("rate.plans", "counter", 2), metric("new", "gauge", 1))
    assert status_of(node(*metrics)) == {
        "id": "n1",
        "alive": True,
        "gateway": "host:1",
        "metrics": {"lookups": 3, "rate.plans": 2, "new": 1},
    }


def test_no_name_of_a_newer_node_collides() -> None:
    status = status_of(node(metric("id", "gauge", 1), metric("rate", "gauge", 2), metric("rate.plans", "counter", 3)))
    assert status["id"] == "n1"
    assert status["metrics"] == {"id": 1, "rate": 2, "rate.plans": 3}


def test_a_metric_name_that_is_not_utf8_is_left_out() -> None:
    assert metrics_of(metric(b"a\xff", "gauge", 1), metric("b", "gauge", 2)) == {"b": 2}


def test_a_type_of_a_newer_node_is_a_gauge() -> None:
    assert metrics_of(metric("new", 7, 3)) == {"new": 3}


def test_histograms_have_quantiles() -> None:
    times = metric("lookup_us", "histogram", 5000, ((7, 98), (103, 1), (1023, 1)))
    assert metrics_of(times)["lookup_us"] == {
        "count": 100,
        "sum": 5000,
        "p50": 7,
        "p90": 7,
        "p99": 103,
        "p999": 1023,
        "buckets": [[7, 98], [103, 1], [1023, 1]],
    }


def test_an_empty_histogram_has_zeros() -> None:
    status = metrics_of(metric("lookup_us", "histogram", 0))["lookup_us"]
    assert status["count"] == status["p50"] == status["p999"] == 0
