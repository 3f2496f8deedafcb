"""Read the recipe of a refresh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.plugins import DateRange, InvalidConfig, Mode
from optaic.rules.columns import value_column
from optaic.rules.kinds import TIMEZONE
from optaic.rules.run_parameters import DATA_DATE, END, REPIN_TYPES, START
from optaic.rules.signal_contracts import DEFAULTS
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from worker.builtin.parameters import read_date
from worker.builtin.signal_guard import BoundsPolicy, NanPolicy, SignalContract
from worker.readers import hash_readers
from worker.recipe import Input, PipelineRecipe, StoredData
from worker.recipe_reading.components import (
    Versions,
    find_dataset,
    read_components,
    read_guardrails,
    read_macros,
    read_operators,
    read_scheduled_date,
    read_struct,
    to_mapping,
)


def make_refresh(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    inputs: tuple[Input, ...],
    versions: Versions,
    base_instance: instance_pb2.Instance | None,
) -> PipelineRecipe:
    """Return what a refresh of a dataset or signal computes; `make_recipe` has the arguments."""
    dataset = find_dataset(instance)
    assert dataset is not None
    parameters = read_struct(run.parameters)
    date_range = DateRange(read_date(parameters, START), read_date(parameters, END))
    base_dataset = (find_dataset(base_instance) if base_instance is not None else None) or dataset
    # Runs for ranges may leave gaps, so the next run without a range starts from scratch.
    is_fresh_start = run.base_version.is_partial_range and not (date_range.start or date_range.end)
    is_full = run.mode == run_pb2.RUN_MODE_FULL or is_fresh_start
    has_base = bool(run.base_version.physical_version)
    pipeline, store, accessor = read_components(dataset, versions)
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
        data_date=read_date(parameters, DATA_DATE) or read_scheduled_date(run, timezone),
        base=(
            StoredData(
                *read_components(base_dataset, versions)[1:],
                run.base_version.uri,
                run.base_version.physical_version,
                base_dataset.timezone or TIMEZONE,
                run.base_version.digest,
            )
            if has_base
            else None
        ),
        base_pipeline=None if base_instance is None else read_components(base_dataset, versions)[0],
        may_reshape=run.mode == run_pb2.RUN_MODE_FULL,
        repins_types=run.mode == run_pb2.RUN_MODE_FULL and parameters.get(REPIN_TYPES) is True,
        contract=_read_contract(instance.signal.contract, pipeline.config) if is_signal else None,
        macros=read_macros(called),
        operators=read_operators(called),
        output_schema=to_mapping(version.output_schema),
        guardrails=read_guardrails(version, pipeline.config),
        readers_hash=_hash_readers(dataset, versions),
        base_readers_hash=(
            _hash_readers(base_dataset, versions) if has_base and not run.base_version.readers_hash else ""
        ),
        max_deleted_share=_read_share(run, dataset),
        allow_deletion=run.allow_deletion,
        allows_increment=run.allows_incremental,
        full_because=run.full_because,
    )


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
