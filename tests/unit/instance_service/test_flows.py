"""Flows and the edges between them, over all kinds."""

import itertools

import pytest

from instance_service.domain.flows import (
    Edge,
    Upstream,
    derive_edges,
    flow_kinds,
    has_output,
    parse_name,
    scheduled_flow,
)
from instance_service.domain.paths import downstream_first, shortest_cycle
from optaic.rules.deployments import deployment_name
from optaic.rules.kinds import COMPONENT_KINDS

KINDS = ("dataset", "signal", "experiment", "model", "portfolio_optimizer", "backtest")
READABLE = KINDS[:-1]
_OUTPUT = {
    "dataset": "refresh", "signal": "refresh", "experiment": "preview",
    "model": "inference", "portfolio_optimizer": "optimize",
}  # fmt: skip


def test_each_kind_has_its_flows_and_components_have_none() -> None:
    assert {kind: flow_kinds(kind) for kind in KINDS} == {
        "dataset": ("refresh",),
        "signal": ("refresh",),
        "experiment": ("preview",),
        "model": ("training", "inference", "monitoring"),
        "portfolio_optimizer": ("optimize",),
        "backtest": ("backtest",),
    }
    assert all(flow_kinds(kind, has_monitoring=True) == () for kind in COMPONENT_KINDS)
    assert flow_kinds("dataset", has_monitoring=True) == ("refresh", "monitoring")
    assert all(scheduled_flow(kind) in flow_kinds(kind) for kind in KINDS)
    assert [kind for kind in (*KINDS, *COMPONENT_KINDS) if has_output(kind)] == list(READABLE)


def test_a_definition_selects_the_flows() -> None:
    assert flow_kinds("model", ["training"]) == ("training",)
    assert flow_kinds("model", ["inference", "training"]) == ("training", "inference")
    assert flow_kinds("signal", ["refresh"], has_monitoring=True) == ("refresh", "monitoring")
    assert flow_kinds("dataset", ["refresh", "monitoring"]) == ("refresh",)
    edges = derive_edges("m", flow_kinds("model", ["training"]), [Upstream("f", "dataset", "features")])
    assert edges == (Edge("training", "f", "refresh", "features", "feature"),)


@pytest.mark.parametrize(("kind", "upstream_kind"), list(itertools.product(KINDS, READABLE)))
def test_every_kind_reads_the_output_flow_of_every_other(kind: str, upstream_kind: str) -> None:
    upstream = Upstream("up", upstream_kind, "input")
    edges = derive_edges("own", flow_kinds(kind), [upstream])
    wanted = {"signal": "signal", "model": "model"}.get(upstream_kind, "data")
    outward = [edge for edge in edges if edge.upstream_instance_id == "up"]
    assert {edge.flow_kind for edge in outward} == set(flow_kinds(kind))
    assert {(edge.upstream_flow_kind, edge.role, edge.kind) for edge in outward} == {
        (_OUTPUT[upstream_kind], "input", wanted)
    }


def test_a_model_depends_on_itself_in_order() -> None:
    upstreams = [Upstream("f", "dataset", "features"), Upstream("t", "dataset", "target")]
    edges = derive_edges("m", flow_kinds("model"), upstreams)
    assert set(edges) == {
        Edge("training", "f", "refresh", "features", "feature"),
        Edge("training", "t", "refresh", "target", "feature"),
        Edge("inference", "f", "refresh", "features", "feature"),
        Edge("inference", "m", "training", "model", "model"),
        Edge("monitoring", "f", "refresh", "features", "feature"),
        Edge("monitoring", "t", "refresh", "target", "feature"),
        Edge("monitoring", "m", "inference", "monitored", "model"),
    }


def test_a_champion_is_read_whatever_is_trained() -> None:
    upstreams = [Upstream("f", "dataset", "features"), Upstream("t", "dataset", "target")]
    with_champion = set(derive_edges("m", flow_kinds("model"), upstreams, has_champion=True))
    without = set(derive_edges("m", flow_kinds("model"), upstreams))
    assert without - with_champion == {Edge("inference", "m", "training", "model", "model")}
    assert with_champion < without


def test_monitoring_of_a_dataset_reads_its_own_refresh_only() -> None:
    edges = derive_edges("d", flow_kinds("dataset", has_monitoring=True), [Upstream("u", "signal", "input")])
    assert edges == (
        Edge("monitoring", "d", "refresh", "monitored", "data"),
        Edge("refresh", "u", "refresh", "input", "signal"),
    )


def test_edges_do_not_depend_on_the_order_of_upstreams() -> None:
    upstreams = [Upstream(f"u{n}", "dataset", role) for n in range(3) for role in ("input", "prices")]
    assert (
        len({derive_edges("i", ("refresh",), order) for order in itertools.permutations(upstreams, 6)}) == 1
    )


def test_a_deployment_name_is_read_back() -> None:
    assert parse_name(deployment_name("t", "i", "refresh")) == ("t", "i")
    for other in ("", "a", ".", "a..c"):
        assert parse_name(other) is None


def test_dependants_come_before_their_upstreams() -> None:
    assert downstream_first(["a"], []) == ["a"]
    edges = [("b", "a"), ("c", "a"), ("c", "b"), ("d", "c"), ("d", "a")]
    assert downstream_first(["a"], edges) == ["d", "c", "b", "a"]
    chain = [(str(number + 1), str(number)) for number in range(5000)]
    assert downstream_first(["0"], chain) == [str(number) for number in range(5000, -1, -1)]


def test_the_order_of_several_is_one_however_they_are_given() -> None:
    starts, edges = ["a", "e", "b"], [("b", "a"), ("c", "a"), ("d", "b"), ("d", "c"), ("f", "e"), ("f", "e")]
    orders = {
        tuple(downstream_first(given, shuffled))
        for given in itertools.permutations(starts)
        for shuffled in itertools.permutations(edges, len(edges))
    }
    (order,) = orders
    assert sorted(order) == ["a", "b", "c", "d", "e", "f"]
    assert all(order.index(reader) < order.index(read) for reader, read in edges)


def test_the_shortest_cycle_is_named() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "d"), ("d", "e"), ("e", "a")]
    assert shortest_cycle(edges, "a") == ["a", "b", "c", "a"]
    assert shortest_cycle([("a", "a")], "a") == ["a", "a"]
    assert shortest_cycle([("a", "b"), ("b", "c"), ("c", "b")], "a") == []
