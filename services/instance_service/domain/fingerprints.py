"""Fingerprints: digests of everything that a flow's results depend on, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from instance_service.domain.flows import Edge
from optaic.rules.backtests import EQUAL_WEIGHT, complete_config
from optaic.rules.kinds import MONITORING, is_asked_for


def canonical_json(value: object) -> str:
    """Return the canonical text of a JSON value: sorted keys, no blanks, whole floats as integers."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def content_hash(content: Mapping[str, object]) -> str:
    """Return the SHA-256 of a definition version's content, hexadecimal."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def compute_fingerprint(flow_kind: str, settings: Mapping[str, object], edges: Iterable[Edge]) -> str:
    """Return the SHA-256 over what a flow's results depend on.

    Args:
        flow_kind: the flow.
        settings: component configs with content hashes, signal contract and backtest settings, with defaults filled in.
        edges: what this flow reads; only the upstream and its role count.
    """
    reads = sorted([edge.upstream_instance_id, edge.upstream_flow_kind, edge.role] for edge in edges)
    content = {"flow": flow_kind, "settings": settings, "edges": reads}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def flow_settings(
    instance_kind: str, flow_kind: str, settings: Mapping[str, object], champion: str
) -> Mapping[str, object]:
    """Return those of an instance's settings on which a flow's results depend.

    Only monitoring depends on its own settings, and that of a dataset or signal on no others. A model's inference also depends
    on the promoted version.
    """
    own = {name: value for name, value in settings.items() if name == MONITORING}
    others = {name: value for name, value in settings.items() if name != MONITORING}
    if is_asked_for(instance_kind, flow_kind):
        return own
    if flow_kind == MONITORING:
        return {**others, **own}
    return {**others, "champion": champion} if flow_kind == "inference" and champion else others


def backtest_settings(given: Mapping[str, Any], *, has_optimizer: bool = False) -> dict[str, Any]:
    """Return a backtest's settings with its defaults filled in and its universe sorted, since that order changes nothing."""
    assets = given.get("assets", {})
    dates = given.get("date_range", {})
    return {
        "config": complete_config(given.get("config", {}), has_optimizer=has_optimizer),
        "universe": sorted(assets.get("universe", ())),
        "benchmark": assets.get("benchmark") or EQUAL_WEIGHT,
        "start": dates.get("start", ""),
        "end": dates.get("end", ""),
    }
