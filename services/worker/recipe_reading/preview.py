"""Read the recipe of an experiment: the call that it previews, with the pinned version of what it calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from optaic.definition.v1 import definition_pb2
from optaic.expression import OPERATORS, Macro, Signature
from optaic.expression.signature import GROUP
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.plugins import DateRange, MissingInput
from optaic.rules.kinds import TIMEZONE
from optaic.rules.roles import INPUT, PRICES
from optaic.run.v1 import run_pb2
from worker.builtin.parameters import read_date
from worker.preview.call import Slot, write_call
from worker.recipe import ExperimentRecipe, Input, Plugin
from worker.recipe_reading.components import (
    Versions,
    describe_version,
    read_component,
    read_guardrails,
    read_macros,
    read_operators,
    read_scheduled_date,
    to_mapping,
)


def make_preview(
    run: run_pb2.Run, instance: instance_pb2.Instance, inputs: Sequence[Input], versions: Versions
) -> ExperimentRecipe:
    """Return what a preview computes.

    Raises:
        InvalidConfig: an argument is missing, unknown, or neither a number nor an expression.
        MissingInput: no upstream has the role `input`.
    """
    read = tuple(given for given in inputs if given.role == INPUT)
    if not read:
        raise MissingInput(f"upstream_refs: no upstream has the role {INPUT}; give one to what is to be read")
    version = versions[instance.definition_version_id]
    called = {name: versions[version_id] for name, version_id in instance.macro_version_ids.items()}
    macros, operators = read_macros(called), read_operators(called)
    name = version.definition_name
    if called.get(name, version).definition_version_id != version.definition_version_id:
        # An argument calls another version by the same name.
        name = _find_free_name(name, {*called, *OPERATORS})
    if version.HasField("op_macro"):
        macros[name] = Macro(name, tuple(version.op_macro.parameters), version.op_macro.expression)
    elif version.HasField("op"):
        operators[name] = Plugin(version.code_ref, **describe_version(version))
    config = read_component(version, instance.config).config
    return ExperimentRecipe(
        call=write_call(name, _list_slots(version), config),
        definition=Plugin(version.code_ref, **describe_version(version)) if version.code_ref else None,
        read=read,
        prices=next((given for given in inputs if given.role == PRICES), None),
        macros=macros,
        operators=operators,
        universe=tuple(instance.experiment.universe),
        date_range=_read_range(instance.experiment.date_range),
        guardrails=read_guardrails(version, {}),
        scheduled_date=read_scheduled_date(run, TIMEZONE),
        base_digest=run.base_version.digest,
    )


def _list_slots(version: definition_pb2.DefinitionVersion) -> list[Slot]:
    """Return the arguments of a call in their order."""
    described = to_mapping(version.parameters_schema).get("properties", {})
    defaults = {name: each.get("default") for name, each in described.items() if isinstance(each, Mapping)}
    if version.HasField("op_macro"):
        return [Slot(name, default=defaults.get(name)) for name in version.op_macro.parameters]
    if version.HasField("op"):
        return [Slot(name, default=defaults.get(name)) for name in (*version.op.values, *version.op.numbers)]
    return _list_slots_of(OPERATORS[version.definition_name])


def _list_slots_of(signature: Signature) -> list[Slot]:
    """Return the arguments of one of the language's own operators, which has its defaults itself."""
    values = [Slot(name) for name in signature.names]
    numbers = [
        Slot(each.name, is_required=not each.is_optional, has_keyword=True) for each in signature.parameters
    ]
    group = [Slot(GROUP, is_required=False, has_keyword=True)] if signature.has_group else []
    return [*values, *numbers, *group]


def _find_free_name(name: str, taken: Collection[str]) -> str:
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _read_range(given: spec_pb2.DateRange) -> DateRange:
    dates = to_mapping(given)
    return DateRange(read_date(dates, "start"), read_date(dates, "end"))
