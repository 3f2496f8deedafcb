"""What a run does with a table that breaks what was promised of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import ENFORCEMENT_BLOCK, ENFORCEMENT_WARN, DefinitionVersion
from support.worker import World
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH


async def test_values_outside_the_contract_fail_the_run_and_publish_nothing(
    world: World, tmp_path: Path
) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    signal = world.signal("close * 1000")
    signal.signal.contract.bounds_policy = 1
    run = world.runs.submit(world.instances.put(signal), REFRESH, {"input": prices})
    await world.execute(run, tmp_path)
    assert run.error.type == "GuardrailViolated"
    assert not (tmp_path / "acme" / signal.instance_id / "refresh" / "data").exists()


@pytest.mark.parametrize("blocks", [True, False])
async def test_a_guardrail_of_the_pipeline_is_held(world: World, tmp_path: Path, *, blocks: bool) -> None:
    content = DefinitionVersion()
    enforcement = ENFORCEMENT_BLOCK if blocks else ENFORCEMENT_WARN
    contract = content.guardrail_contracts.add(name="small", check="signal_bounds", enforcement=enforcement)
    contract.parameters["max"] = 0.5
    content.guardrail_contracts.add(name="there", check="required_columns", enforcement=ENFORCEMENT_BLOCK)
    content.guardrail_contracts[1].parameters["columns"] = ["value"]
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    ending = await world.execute(run, tmp_path)
    text = "1 values of 'value' outside [, 0.5], the first in row 1"
    if not blocks:
        assert ending.outcome is Outcome.COMPLETED
        assert str(run.metrics["guardrail.small"]).startswith(text)
        assert "guardrail.there" not in run.metrics
    else:
        assert ending.outcome is Outcome.FAILED
        assert run.error.type == "GuardrailViolated"
        assert run.error.message.startswith(f"guardrail 'small' (signal_bounds): {text}")
        assert not run.HasField("output_version")
        assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()


@pytest.mark.parametrize("output", [{"format": "csv"}, True, 3, ""])
@pytest.mark.parametrize("is_held", [True, False])
async def test_the_output_config_of_a_pipeline_may_name_no_column(
    world: World, tmp_path: Path, output: object, *, is_held: bool
) -> None:
    content = DefinitionVersion()
    if is_held:
        content.guardrail_contracts.add(name="a", check="signal_bounds", enforcement=ENFORCEMENT_BLOCK)
        content.guardrail_contracts[0].parameters["max"] = 1
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe", output=output), REFRESH)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED


async def test_a_table_matches_the_output_schema_of_its_pipeline(world: World, tmp_path: Path) -> None:
    content = DefinitionVersion()
    content.output_schema["required"] = ["close"]
    world.definitions.content["probe"] = content
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    await world.execute(run, tmp_path)
    assert run.error.type == "SchemaMismatch"
    assert "column 'close' is missing" in run.error.message
    assert not (tmp_path / "acme" / run.instance_id / "refresh" / "data").exists()
