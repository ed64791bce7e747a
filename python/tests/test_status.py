"""Tests the conversion of a node's status without a node."""

from types import SimpleNamespace

from kdn._status import status_of


def metric(name: str, kind: str, value: int, buckets: tuple[tuple[int, int], ...] = ()) -> SimpleNamespace:
    listed = [SimpleNamespace(atMost=at_most, count=count) for at_most, count in buckets]
    return SimpleNamespace(name=name, type=kind, value=value, buckets=listed)


def node(*metrics: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(id="n1", alive=True, gatewayAddress="host:1", metrics=metrics)


def test_numbers_have_their_names_and_dots_nest() -> None:
    metrics = (metric("lookups", "counter", 3), metric("rate.plans", "counter", 2), metric("new", "gauge", 1))
    status = status_of(node(*metrics))
    assert (status["id"], status["alive"], status["gateway"]) == ("n1", True, "host:1")
    assert (status["lookups"], status["rate"], status["new"]) == (3, {"plans": 2}, 1)


def test_histograms_have_quantiles() -> None:
    times = metric("lookup_us", "histogram", 5000, ((7, 98), (103, 1), (1023, 1)))
    assert status_of(node(times))["lookup_us"] == {
        "count": 100,
        "sum": 5000,
        "p50": 7,
        "p90": 7,
        "p99": 103,
        "p999": 1023,
        "buckets": [[7, 98], [103, 1], [1023, 1]],
    }


def test_an_empty_histogram_has_none() -> None:
    status = status_of(node(metric("lookup_us", "histogram", 0)))["lookup_us"]
    assert status["count"] == status["p50"] == status["p999"] == 0
