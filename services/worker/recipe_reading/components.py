"""Read definition versions and configurations: components, macros, operators and guardrails as plain values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from optaic.definition.v1 import definition_pb2
from optaic.expression import Macro
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.plugins import day_in
from optaic.plugins.numbers import type_numbers
from optaic.rules.columns import value_column
from optaic.run.v1 import run_pb2
from worker.guardrails import Guardrail
from worker.recipe import Component, ConfiguredOptimizer, Plugin

Versions = Mapping[str, definition_pb2.DefinitionVersion]  # by definition version id
_ANYTHING: Mapping[str, Any] = {}  # the schema that says nothing


def find_dataset(instance: instance_pb2.Instance) -> spec_pb2.DatasetSpec | None:
    """Return the composition of a dataset or signal; None for any other kind."""
    kind = instance.WhichOneof("spec")
    if kind == "dataset":
        return instance.dataset
    return instance.signal.dataset if kind == "signal" else None


def to_mapping(message: Message) -> dict[str, Any]:
    """Return a Struct, or any message, as plain values under its proto names; absent fields stay absent."""
    return MessageToDict(message, preserving_proto_field_name=True)


def read_components(
    dataset: spec_pb2.DatasetSpec, versions: Versions
) -> tuple[Component, Component, Component]:
    """Return the pipeline, the store and the accessor of a dataset as they are configured."""
    pipeline, store, accessor = (
        read_component(versions[given.definition_version_id], given.config)
        for given in (dataset.pipeline, dataset.store, dataset.accessor)
    )
    return pipeline, store, accessor


def read_component(version: definition_pb2.DefinitionVersion, config: Struct) -> Component:
    """Return a component as it is configured."""
    values = read_struct(config, to_mapping(version.parameters_schema))
    return Component(version.code_ref, values, **describe_version(version))


def read_optimizer(instance: instance_pb2.Instance, versions: Versions) -> ConfiguredOptimizer:
    """Return an optimizer as it is configured."""
    version = versions[instance.definition_version_id]
    schema = to_mapping(version.parameters_schema)
    limits = schema.get("$defs", {}).get("constraints", _ANYTHING)
    return ConfiguredOptimizer(
        version.code_ref,
        read_struct(instance.config, schema),
        read_struct(instance.portfolio_optimizer.constraints, limits),
        **describe_version(version),
    )


def describe_version(version: definition_pb2.DefinitionVersion) -> dict[str, str]:
    """Return how a plugin names the definition version that it is of."""
    return {
        "definition_version_id": version.definition_version_id,
        "definition_name": version.definition_name,
        "definition_version": version.version,
    }


def read_struct(given: Struct, schema: Mapping[str, Any] = _ANYTHING) -> dict[str, Any]:
    """Return plain values, their numbers as the schema calls them."""
    values: dict[str, Any] = type_numbers(to_mapping(given), schema)
    return values


def read_macros(called: Versions) -> dict[str, Macro]:
    """Return the called macros by name."""
    saved = {name: version.op_macro for name, version in called.items() if version.HasField("op_macro")}
    return {name: Macro(name, tuple(macro.parameters), macro.expression) for name, macro in saved.items()}


def read_operators(called: Versions) -> dict[str, Plugin]:
    """Return the called operators of other packages, by the names that expressions use."""
    return {
        name: Plugin(version.code_ref, **describe_version(version))
        for name, version in called.items()
        if version.code_ref
    }


def read_guardrails(
    version: definition_pb2.DefinitionVersion, config: Mapping[str, object]
) -> tuple[Guardrail, ...]:
    """Return the guardrails of a definition version for an instance with this configuration."""
    own = {"signal_bounds": {"column": value_column(config.get("output"))}}
    return tuple(
        Guardrail(
            contract.name,
            contract.check,
            {**own.get(contract.check, {}), **read_struct(contract.parameters)},
            blocks=contract.enforcement == definition_pb2.ENFORCEMENT_BLOCK,
        )
        for contract in version.guardrail_contracts
    )


def read_scheduled_date(run: run_pb2.Run, timezone: str) -> dt.date | None:
    """Return the day in a zone of the time for which a run is scheduled; None if it is not."""
    if not run.HasField("scheduled_time"):
        return None
    return day_in(run.scheduled_time.ToDatetime(dt.UTC), timezone)
