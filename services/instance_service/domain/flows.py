"""The flows of an instance: which it has, what each reads, and the names of their counterparts in outside systems."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from optaic.rules import roles
from optaic.rules.kinds import ASKED_FOR, COMPOSED_KINDS, FLOWS, OUTPUT_FLOWS, SCHEDULED_FLOWS, is_asked_for

# The outside systems by what they hold for an instance. Each is a finalizer: it must be empty before the deletion ends.
DEPLOYMENTS = "deployments"
EXPERIMENT = "mlflow"
PROJECT = "evidently"

_EDGE_KINDS = {"signal": "signal", "model": "model"}  # by the upstream's kind; all others have the role data
SCHEMA = "schema"  # the edge of a backtest to its optimizer, which it executes itself: no output is read
_FEATURE_ROLES = (roles.FEATURES, roles.TARGET)


@dataclass(frozen=True)
class Upstream:
    """An instance that another one reads, its kind, and its role."""

    instance_id: str
    kind: str
    role: str


@dataclass(frozen=True, order=True)
class Edge:
    """A dependency between two flows: one reads the output of the other."""

    flow_kind: str
    upstream_instance_id: str
    upstream_flow_kind: str
    role: str
    kind: str


def flow_kinds(kind: str, named: Collection[str] = (), *, has_monitoring: bool = False) -> tuple[str, ...]:
    """Return the flows of an instance of this kind, in no special order; components have none.

    If the definition names flows, the instance has only those. Each dataset or signal decides by itself whether it is
    monitored.
    """
    flows = tuple(
        flow for flow in FLOWS.get(kind, ()) if not is_asked_for(kind, flow) and (not named or flow in named)
    )
    return (*flows, ASKED_FOR) if has_monitoring and kind in COMPOSED_KINDS else flows


def systems_of_kind(kind: str, *, is_monitored: bool = False) -> tuple[str, ...]:
    """Return the outside systems that hold something for an instance of this kind; components have none."""
    if kind not in FLOWS:
        return ()
    if kind == "model":
        return (DEPLOYMENTS, EXPERIMENT, PROJECT)
    return (DEPLOYMENTS, PROJECT) if is_monitored else (DEPLOYMENTS,)


def watched_flow(flows: Collection[str]) -> str:
    """Return the flow whose output the instance's monitoring checks."""
    return "inference" if "inference" in flows else "refresh"


def scheduled_flow(kind: str) -> str:
    """Return the flow that the instance's schedule starts."""
    return SCHEDULED_FLOWS[kind]


def has_output(kind: str) -> bool:
    """Return whether an instance of this kind has output, so that it can be an upstream."""
    return kind in OUTPUT_FLOWS


def derive_edges(
    instance_id: str, flows: Iterable[str], upstreams: Sequence[Upstream], *, has_champion: bool = False
) -> tuple[Edge, ...]:
    """Return what each flow reads, sorted, each edge once.

    Monitoring reads the instance's own output, all other flows read the upstreams. The monitoring of a model reads them too,
    because it compares the model's features and the labels that came true. Inference also reads its own training, unless
    the model has a champion: a champion stays the same whatever is trained.
    """
    own = set(flows)
    edges: set[Edge] = set()
    for flow in own:
        if flow == "monitoring":
            watched = watched_flow(own)
            kind = "model" if watched == "inference" else "data"
            edges.add(Edge(flow, instance_id, watched, roles.MONITORED, kind))
            if watched != "inference":
                continue
        if flow == "inference" and not has_champion:
            edges.add(Edge(flow, instance_id, "training", roles.TRAINED, "model"))
        for upstream in upstreams:
            if flow == "inference" and upstream.role == roles.TARGET:
                continue  # only training reads the target of the prediction
            kind = _edge_kind(flow, upstream)
            edges.add(Edge(flow, upstream.instance_id, OUTPUT_FLOWS[upstream.kind], upstream.role, kind))
    return tuple(sorted(edges))


def _edge_kind(flow: str, upstream: Upstream) -> str:
    if (flow, upstream.role) == ("backtest", roles.OPTIMIZER):
        return SCHEMA
    return "feature" if upstream.role in _FEATURE_ROLES else _EDGE_KINDS.get(upstream.kind, "data")


def parse_name(name: str) -> tuple[str, str] | None:
    """Return the (tenant, instance) ids in a name that this service gave, or None for any other name."""
    parts = name.split(".")
    return (parts[0], parts[1]) if len(parts) in {2, 3} and all(parts) else None
