"""Describe in plain words what changed between two states of an instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from instance_service.resources.conversion import dataset_of, monitoring_of
from instance_service.resources.instances.references import Use, references_of
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.backtests import FIRST_PROCEDURE
from optaic.rules.kinds import TIMEZONE
from optaic.rules.monitoring import read_settings


def describe_changes(current: Instance, changed: Instance, uses: Sequence[Use] = ()) -> str:
    """Describe which definitions, macros and configurations of an instance changed, and which other settings."""
    called = {one.definition_version_id: one for use in uses for one in use.macros.values()}
    parts = []
    if current.kind != changed.kind:
        parts.append(f"it became a {changed.WhichOneof('spec')}")
    for before, after in zip(references_of(current), references_of(changed), strict=True):
        old, new = before.spec, after.spec
        if old.definition_id != new.definition_id:
            parts.append(f"{after.slot} {old.definition_name} was replaced by {new.definition_name}")
        elif old.definition_version_id != new.definition_version_id:
            versions = f"{old.definition_version} to {new.definition_version}"
            parts.append(f"definition {new.definition_name} moved from version {versions}")
        parts.extend(
            _describe_move(name, version_id, called.get(version_id))
            for name, version_id in sorted(new.macro_version_ids.items())
            if old.macro_version_ids.get(name, version_id) != version_id
        )
        if old.config != new.config:
            parts.append(
                f"the config of its {after.slot} changed" if new is not changed else "its config changed"
            )
    zones = [dataset.timezone if (dataset := dataset_of(each)) else "" for each in (current, changed)]
    if zones[0] != zones[1]:
        parts.append(f"its time zone changed from {zones[0] or TIMEZONE} to {zones[1] or TIMEZONE}")
    if changed.HasField("backtest"):
        earlier, later = (each.backtest.config.procedure or FIRST_PROCEDURE for each in (current, changed))
        parts += [f"its procedure moved from {earlier} to {later}"] if earlier != later else []
    parts += [f"its monitoring changed: {moves}"] if (moves := _describe_monitoring(current, changed)) else []
    if connections_of(current) != connections_of(changed):
        parts.append("its upstreams changed")
    champions = [each.model.champion.model_version for each in (current, changed)]
    if champions[0] != champions[1]:
        parts.append(_describe_champion(*champions))
    return "; ".join(parts) or "its settings changed"


def _describe_monitoring(current: Instance, changed: Instance) -> str:
    before, after = (asdict(read_settings(monitoring_of(each))) for each in (current, changed))
    return ", ".join(
        f"{name} from {before[name]:g} to {after[name]:g}" for name in after if before[name] != after[name]
    )


def connections_of(instance: Instance) -> list[tuple[str, str]]:
    """Return the upstreams that an instance names, as pairs of (instance, role)."""
    return [(ref.resource_id, ref.role) for ref in instance.upstream_refs]


def _describe_champion(earlier: str, later: str) -> str:
    if not earlier:
        return f"model version {later} was promoted"
    return f"champion moved from version {earlier} to {later}" if later else f"champion {earlier} was removed"


def _describe_move(name: str, version_id: str, version: DefinitionVersion | None) -> str:
    word = "operator" if version is not None and version.HasField("op") else "macro"
    return f"{word} {name} moved to version {version.version if version is not None else version_id}"
