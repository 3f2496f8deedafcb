"""Take from an optimizer what counts for a backtest that executes it."""

from __future__ import annotations

from typing import Any

from instance_service.resources.conversion import json_of
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance


def optimizer_settings(optimizer: Instance, version: DefinitionVersion) -> dict[str, Any]:
    """Return what of an optimizer affects the results of a backtest; its upstreams do not, as the backtest has its own."""
    return {
        "definition": version.content_hash,
        "config": json_of(optimizer.config),
        "constraints": json_of(optimizer.portfolio_optimizer.constraints),
    }


def counts_alike(one: Instance, other: Instance) -> bool:
    """Return whether two revisions of an optimizer mean the same for a backtest."""
    return (
        one.definition_version_id == other.definition_version_id
        and one.config == other.config
        and one.portfolio_optimizer.constraints == other.portfolio_optimizer.constraints
    )
