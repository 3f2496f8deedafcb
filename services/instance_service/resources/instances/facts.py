"""Read from the database what drafts need, for any number of instances at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from instance_service.jsonschema_adapter import EXPRESSION
from instance_service.resources.conversion import json_of
from instance_service.resources.definitions.library import load_macros
from instance_service.resources.definitions.macros import Calls, MacroVersions, calls_of
from instance_service.resources.instances.freshness import is_judged
from instance_service.resources.instances.pending import Pending
from instance_service.resources.instances.profiles import profile_of
from instance_service.resources.instances.references import Reference, Versions, Wanted, find_version
from instance_service.resources.instances.upstreams import Known, Named
from instance_service.store import graph, outputs
from instance_service.store import instances as store
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules import roles
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.enums import enum_word

_FLOW = "refresh"


@dataclass(frozen=True)
class Facts:
    """Hold the definitions, macros, upstreams and possible price sources that were found."""

    versions: Versions
    macros: Mapping[int, MacroVersions]
    known: Known
    stored_columns: Mapping[str, Sequence[str]]  # of those upstreams whose columns are known
    price_sources: Mapping[str, Sequence[tuple[str, bool]]]
    own_columns: Mapping[str, Sequence[str]]  # of those instances with a policy whose columns are known
    optimizers: Mapping[str, DefinitionVersion]  # what the optimizers of backtests are pinned to, by instance


async def gather(
    connection: Connection,
    tenant_id: str,
    pending: Sequence[Pending],
    newest: DefinitionVersion | None = None,
) -> Facts:
    """Look up what all pending instances need; `newest`, if given, counts as its definition's newest version."""
    references = [reference for one in pending for reference in one.references]
    versions = await load_versions(connection, tenant_id, references)
    if newest is not None:
        versions.update(resolve_newest(references, newest))
    known = await load_known(connection, tenant_id, [named for one in pending for named in one.named])
    reading = [one for one in pending if _may_have_expressions(one, versions)]
    upstream_ids = sorted({named.instance_id for one in reading for named in one.named})
    judged = {
        one.instance.instance_id: one.current
        for one in pending
        if one.current is not None and is_judged(one.instance)
    }
    return Facts(
        versions,
        await load_called(connection, tenant_id, references, versions),
        known,
        await load_stored_columns(connection, tenant_id, known, upstream_ids),
        {
            one.instance.instance_id: await load_price_sources(connection, tenant_id, one.instance, one.named)
            for one in pending
            if one.kind == "backtest"
        },
        await load_stored_columns(connection, tenant_id, judged, list(judged)),
        await load_optimizers(connection, tenant_id, known, pending),
    )


def _may_have_expressions(pending: Pending, versions: Versions) -> bool:
    found = [versions[one] for reference in pending.references for one in reference.wanted if one in versions]
    return any(EXPRESSION.encode() in version.parameters_schema.SerializeToString() for version in found)


async def load_versions(
    connection: Connection, tenant_id: str, references: Iterable[Reference]
) -> dict[Wanted, DefinitionVersion]:
    """Return the existing versions that the references may mean, with one query."""
    wanted = sorted(
        {
            one
            for reference in references
            if reference.is_named
            for meant in (reference.wanted, *reference.wanted_beside.values())
            for one in meant
        }
    )
    if not wanted:
        return {}
    found = await store.resolve_versions(connection, tenant_id, wanted)
    return {wanted[position]: DefinitionVersion.FromString(row) for position, row in found.items()}


def resolve_newest(
    references: Iterable[Reference], newest: DefinitionVersion
) -> dict[Wanted, DefinitionVersion]:
    """Resolve the references that track the newest version of a definition, as if `newest` were that version."""
    return {
        one: newest
        for reference in references
        if reference.spec.track_newest and reference.spec.definition_id == newest.definition_id
        for one in reference.wanted
    }


async def load_called(
    connection: Connection, tenant_id: str, references: Sequence[Reference], versions: Versions
) -> dict[int, MacroVersions]:
    """Return the macros that each reference's configuration uses, keyed by the identity of its spec."""
    calling: list[tuple[Reference, Calls]] = []
    for one in references:
        version = find_version(one, versions)
        if version is not None and (names := await off_loop.run(_names, version, one)):
            calling.append((one, Calls(names, one.held_macros, one.spec.track_newest and not one.stays)))
    found = await load_macros(connection, tenant_id, [calls for _, calls in calling])
    return {id(one.spec): macros for (one, _), macros in zip(calling, found, strict=True)}


def _names(version: DefinitionVersion, reference: Reference) -> tuple[str, ...]:
    try:
        return calls_of(version, json_of(reference.spec.config))
    except ValueError:  # a number that JSON cannot express; the check of the configuration reports it
        return ()


async def load_known(connection: Connection, tenant_id: str, named: Iterable[Named]) -> dict[str, Instance]:
    """Return the named instances that exist, with one query."""
    snapshots = await store.get_snapshots(connection, tenant_id, sorted({one.instance_id for one in named}))
    return {instance_id: Instance.FromString(snapshot) for instance_id, snapshot in snapshots.items()}


async def load_price_sources(
    connection: Connection, tenant_id: str, instance: Instance, named: Sequence[Named]
) -> list[tuple[str, bool]]:
    """Return the datasets from which a backtest without named prices could take them; see `derive_prices`."""
    primary = instance.backtest.signals.primary
    if not primary or any(one.role == roles.PRICES for one in named):
        return []
    return await graph.list_dataset_ancestors(connection, tenant_id, primary)


async def load_optimizers(
    connection: Connection, tenant_id: str, known: Known, pending: Sequence[Pending]
) -> dict[str, DefinitionVersion]:
    """Return the definition version of each optimizer that a backtest names, with one query."""
    named = {
        each.instance_id
        for one in pending
        if one.kind == "backtest"
        for each in one.named
        if each.role == roles.OPTIMIZER and each.instance_id in known
    }
    ids = sorted(each for each in named if known[each].WhichOneof("spec") == "portfolio_optimizer")
    if not ids:
        return {}
    wanted = [("portfolio_optimizer", "", "", known[each].definition_version_id, "", "") for each in ids]
    found = await store.resolve_versions(connection, tenant_id, wanted)
    return {ids[position]: DefinitionVersion.FromString(row) for position, row in found.items()}


async def load_stored_columns(
    connection: Connection, tenant_id: str, known: Known, instance_ids: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the columns of each instance's newest output, unless the instance was reconfigured since."""
    fingerprints = {
        instance_id: flow.compute_fingerprint
        for instance_id in instance_ids
        if instance_id in known
        for flow in known[instance_id].flows
        if enum_word(FlowKind, flow.flow_kind) == _FLOW
    }
    if not fingerprints:
        return {}
    found = await outputs.list_outputs(connection, tenant_id, list(fingerprints), _FLOW)
    return {
        output.instance_id: tuple(profile_of(output.profile).columns)
        for output in found
        if output.profile is not None and output.compute_fingerprint == fingerprints[output.instance_id]
    }
