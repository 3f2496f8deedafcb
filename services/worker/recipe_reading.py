"""Build the recipe of a run from protobuf messages; calls no service and no plugin."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.expression import Macro
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.plugins import DateRange, InvalidConfig, MissingInput, Mode, PluginError, day_in
from optaic.plugins.numbers import type_numbers
from optaic.rules.columns import value_column
from optaic.rules.kinds import COMPUTED_FLOWS, FLOWS, TIMEZONE
from optaic.rules.roles import MEMBERSHIP, PRICES
from optaic.rules.run_parameters import DATA_DATE, END, REPIN_TYPES, START
from optaic.rules.signal_contracts import DEFAULTS
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from worker.backtest.settings import BacktestSettings
from worker.builtin.parameters import read_date
from worker.builtin.signal_guard import BoundsPolicy, NanPolicy, SignalContract
from worker.guardrails import Guardrail
from worker.readers import hash_readers
from worker.recipe import BacktestRecipe, Component, Input, PipelineRecipe, Plugin, Recipe, StoredData

Versions = Mapping[str, definition_pb2.DefinitionVersion]  # by definition version id
_ANYTHING: Mapping[str, Any] = {}  # the schema that says nothing


def list_version_ids(instances: Sequence[instance_pb2.Instance]) -> list[str]:
    """Return the definition versions that these instances' components, and what they call, are pinned to, each once.

    Raises:
        PluginError: `ComponentUnpinned`, when a component names no version.
    """
    found: dict[str, None] = {}
    for instance in instances:
        if (dataset := find_dataset(instance)) is None:
            continue
        for component in (dataset.pipeline, dataset.store, dataset.accessor):
            if not component.definition_version_id:
                raise PluginError(
                    f"{instance.name}: component {component.definition_name or '?'} is pinned to no version of its "
                    "definition; update the instance, which pins it",
                    type="ComponentUnpinned",
                )
            found[component.definition_version_id] = None
        found.update(dict.fromkeys(sorted(dataset.pipeline.macro_version_ids.values())))
    return list(found)


def find_dataset(instance: instance_pb2.Instance) -> spec_pb2.DatasetSpec | None:
    """Return the composition of a dataset or signal; None for any other kind."""
    kind = instance.WhichOneof("spec")
    if kind == "dataset":
        return instance.dataset
    return instance.signal.dataset if kind == "signal" else None


def make_recipe(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    upstreams: Sequence[instance_pb2.Instance],
    versions: Versions,
    base_instance: instance_pb2.Instance | None = None,
) -> Recipe:
    """Return what `run` computes.

    Args:
        run: with its pins.
        instance: at the run's revision.
        upstreams: each at the revision that is pinned.
        versions: what all of them are pinned to.
        base_instance: at the revision at which the base version was made, where that is another one.

    Raises:
        PluginError: by type; `UnsupportedFlow` when the flow is not one that this worker executes.
    """
    named = {(ref.role, ref.resource_id): ref.name for ref in instance.upstream_refs}
    inputs = _read_inputs(run, named, {upstream.instance_id: upstream for upstream in upstreams}, versions)
    flow = enum_word(flow_pb2.FlowKind, run.flow_kind)
    if flow not in COMPUTED_FLOWS or flow not in FLOWS.get(instance.WhichOneof("spec") or "", ()):
        raise PluginError(
            f"this worker cannot execute the flow {flow} of {instance.name}; upgrade the worker to the release of the "
            "services, or submit another flow",
            type="UnsupportedFlow",
        )
    dataset = find_dataset(instance)
    if dataset is None:  # the one other kind with a flow that is computed
        return _make_backtest(instance, inputs)
    parameters = _read_struct(run.parameters)
    date_range = DateRange(read_date(parameters, START), read_date(parameters, END))
    base_dataset = (find_dataset(base_instance) if base_instance is not None else None) or dataset
    # Runs for ranges may leave gaps, so the next run without a range starts from scratch.
    is_fresh_start = run.base_version.is_partial_range and not (date_range.start or date_range.end)
    is_full = run.mode == run_pb2.RUN_MODE_FULL or is_fresh_start
    has_base = bool(run.base_version.physical_version)
    pipeline, store, accessor = _read_components(dataset, versions)
    called = {name: versions[version_id] for name, version_id in dataset.pipeline.macro_version_ids.items()}
    is_signal = instance.HasField("signal")
    version = versions[dataset.pipeline.definition_version_id]
    timezone = dataset.timezone or TIMEZONE
    return PipelineRecipe(
        pipeline=pipeline,
        store=store,
        accessor=accessor,
        inputs=inputs,
        mode=Mode.FULL if is_full else Mode.INCREMENTAL,
        date_range=date_range,
        timezone=timezone,
        data_date=read_date(parameters, DATA_DATE) or _scheduled_date(run, timezone),
        base=(
            StoredData(
                *_read_components(base_dataset, versions)[1:],
                run.base_version.uri,
                run.base_version.physical_version,
                base_dataset.timezone or TIMEZONE,
            )
            if has_base
            else None
        ),
        base_pipeline=None if base_instance is None else _read_components(base_dataset, versions)[0],
        may_reshape=run.mode == run_pb2.RUN_MODE_FULL,
        repins_types=run.mode == run_pb2.RUN_MODE_FULL and parameters.get(REPIN_TYPES) is True,
        contract=_read_contract(instance.signal.contract, pipeline.config) if is_signal else None,
        macros=_read_macros(called),
        operators={
            name: Plugin(version.code_ref, **_name(version))
            for name, version in called.items()
            if version.code_ref
        },
        output_schema=to_mapping(version.output_schema),
        guardrails=_read_guardrails(version, pipeline.config),
        readers_hash=_hash_readers(dataset, versions),
        base_readers_hash=(
            _hash_readers(base_dataset, versions) if has_base and not run.base_version.readers_hash else ""
        ),
        max_deleted_share=_read_share(run, dataset),
        allow_deletion=run.allow_deletion,
    )


def to_mapping(message: Message) -> dict[str, Any]:
    """Return a Struct, or any message, as plain values under its proto names; absent fields stay absent."""
    return MessageToDict(message, preserving_proto_field_name=True)


def _read_components(
    dataset: spec_pb2.DatasetSpec, versions: Versions
) -> tuple[Component, Component, Component]:
    pipeline, store, accessor = (
        read_component(versions[given.definition_version_id], given.config)
        for given in (dataset.pipeline, dataset.store, dataset.accessor)
    )
    return pipeline, store, accessor


def read_component(version: definition_pb2.DefinitionVersion, config: Struct) -> Component:
    """Return a component as it is configured."""
    values = _read_struct(config, to_mapping(version.parameters_schema))
    return Component(version.code_ref, values, **_name(version))


def _name(version: definition_pb2.DefinitionVersion) -> dict[str, str]:
    return {
        "definition_version_id": version.definition_version_id,
        "definition_name": version.definition_name,
        "definition_version": version.version,
    }


def _read_struct(given: Struct, schema: Mapping[str, Any] = _ANYTHING) -> dict[str, Any]:
    """Return plain values, their numbers as the schema calls them."""
    values: dict[str, Any] = type_numbers(to_mapping(given), schema)
    return values


def _hash_readers(dataset: spec_pb2.DatasetSpec, versions: Versions) -> str:
    readers: dict[str, Mapping[str, Any]] = {
        slot: {
            "definition": versions[given.definition_version_id].content_hash,
            "config": to_mapping(given.config),
        }
        for slot, given in (("store", dataset.store), ("accessor", dataset.accessor))
    }
    if dataset.timezone not in {
        "",
        TIMEZONE,
    }:  # whose clock times without a zone are read on; the default changes nothing
        readers["dataset"] = {"timezone": dataset.timezone}
    return hash_readers(readers)


def _read_share(run: run_pb2.Run, dataset: spec_pb2.DatasetSpec) -> float | None:
    """Return the largest share of rows that may be deleted; None if the run has no limit."""
    is_same_config = run.base_version.compute_fingerprint == run.compute_fingerprint
    is_judged = dataset.HasField("max_deleted_share") and is_same_config and not run.input_versions
    return dataset.max_deleted_share if is_judged and not run.allow_deletion else None


def _read_macros(called: Versions) -> dict[str, Macro]:
    saved = {name: version.op_macro for name, version in called.items() if version.HasField("op_macro")}
    return {name: Macro(name, tuple(macro.parameters), macro.expression) for name, macro in saved.items()}


def _read_guardrails(
    version: definition_pb2.DefinitionVersion, config: Mapping[str, object]
) -> tuple[Guardrail, ...]:
    own = {"signal_bounds": {"column": value_column(config.get("output"))}}
    return tuple(
        Guardrail(
            contract.name,
            contract.check,
            {**own.get(contract.check, {}), **_read_struct(contract.parameters)},
            blocks=contract.enforcement == definition_pb2.ENFORCEMENT_BLOCK,
        )
        for contract in version.guardrail_contracts
    )


def _read_inputs(
    run: run_pb2.Run,
    named: Mapping[tuple[str, str], str],
    upstreams: Mapping[str, instance_pb2.Instance],
    versions: Versions,
) -> tuple[Input, ...]:
    inputs = []
    for pinned in run.input_versions:
        upstream = upstreams[pinned.instance_id]
        # As the reader's expressions name it, whatever it was called when it was computed.
        name = named.get((pinned.role, pinned.instance_id), "") or pinned.instance_name or upstream.name
        dataset = find_dataset(upstream)
        if not pinned.physical_version:
            raise MissingInput(f"upstream {name} ({pinned.role}) has no output to read; run it first")
        if dataset is None:
            raise MissingInput(
                f"upstream {name} ({pinned.role}) is neither a dataset nor a signal; name one in upstream_refs"
            )
        pipeline, store, accessor = _read_components(dataset, versions)
        data = StoredData(store, accessor, pinned.uri, pinned.physical_version, dataset.timezone or TIMEZONE)
        inputs.append(
            Input(
                pinned.role,
                name,
                pinned.instance_id,
                pinned.version,
                pinned.digest,
                data,
                value_column(pipeline.config.get("output")),
            )
        )
    return tuple(inputs)


def _make_backtest(instance: instance_pb2.Instance, inputs: Sequence[Input]) -> BacktestRecipe:
    spec = instance.backtest
    wanted = (spec.signals.primary, *spec.signals.secondary)
    by_id = {found.instance_id: found for found in inputs}
    if missing := [signal for signal in wanted if signal not in by_id]:
        raise MissingInput(
            f"signals: the run reads no version of {', '.join(missing)}; submit a new run, which reads the present signals"
        )
    universe = [entity for entity in spec.assets.universe if entity not in by_id]
    memberships = [found for found in inputs if found.role == MEMBERSHIP]
    if spec.assets.membership_id and not memberships:
        raise MissingInput(
            "assets.membership_id: the run reads no version of it; submit a new run, which reads the present membership"
        )
    others = [found for found in inputs if found.instance_id not in wanted and found.role != MEMBERSHIP]
    # The id of a dataset in the universe, or the role `prices`; else there must be just one candidate.
    prices = (
        [found for found in others if found.instance_id in spec.assets.universe]
        or [found for found in others if found.role == PRICES]
        or others
    )
    if len({found.instance_id for found in prices}) != 1:
        raise MissingInput(
            f"upstream_refs: a backtest needs exactly one dataset of prices, not {len(prices)}; give one dataset the role {PRICES}"
        )
    settings = to_mapping(spec)
    settings.setdefault("assets", {})["universe"] = universe
    return BacktestRecipe(
        prices[0],
        tuple(by_id[signal] for signal in wanted),
        BacktestSettings.from_spec(settings),
        memberships[0] if memberships else None,
    )


def _read_contract(contract: spec_pb2.SignalContract, config: Mapping[str, object]) -> SignalContract:
    policies = spec_pb2.SignalContract
    nan, bounds = DEFAULTS.nan_policy, DEFAULTS.bounds_policy
    if contract.nan_policy:
        nan = enum_word(policies.NanPolicy, contract.nan_policy)
    if contract.bounds_policy:
        bounds = enum_word(policies.BoundsPolicy, contract.bounds_policy)
    try:
        return SignalContract(
            minimum=contract.min_value if contract.HasField("min_value") else DEFAULTS.min_value,
            maximum=contract.max_value if contract.HasField("max_value") else DEFAULTS.max_value,
            neutral_value=contract.neutral_value,
            nan_policy=NanPolicy(nan),
            bounds_policy=BoundsPolicy(bounds),
            index_columns=tuple(contract.index_columns) or DEFAULTS.index_columns,
            value_column=value_column(config.get("output")),
        )
    except ValueError as error:
        raise InvalidConfig(f"signal.contract.{error}") from error


def _scheduled_date(run: run_pb2.Run, timezone: str) -> dt.date | None:
    if not run.HasField("scheduled_time"):
        return None
    return day_in(run.scheduled_time.ToDatetime(dt.UTC), timezone)
