"""instance-service, run-service and worker mean the same flow, deployment and flow run in Prefect."""

import importlib
import inspect
from pathlib import Path

import pytest
from prefect import Flow

from instance_service.config import Settings as InstanceSettings
from optaic.rules import deployments
from support.contract import ROOT, page
from worker import flow, ticket
from worker.config import Settings as WorkerSettings

FLOW = ("t", "i", "refresh")


def test_the_names_are_those_that_deployments_have_had() -> None:
    assert deployments.deployment_name(*FLOW) == "t.i.refresh"
    assert deployments.deployment_tags("x", *FLOW) == (
        "optaic",
        "installation:x",
        "tenant:t",
        "instance:i",
        "flow:refresh",
    )
    assert deployments.flow_run_tags(*FLOW) == ("optaic", "tenant:t", "instance:i", "flow:refresh")
    assert deployments.flow_run_parameters(*FLOW, "r") == {
        "tenant_id": "t",
        "instance_id": "i",
        "flow_kind": "refresh",
        "run_id": "r",
    }


def test_the_worker_has_the_flow_that_deployments_name() -> None:
    module, _, name = deployments.ENTRYPOINT.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    assert found is flow.execute
    assert found.name == deployments.FLOW_NAME


def test_the_worker_takes_the_parameters_that_flow_runs_are_given() -> None:
    assert tuple(inspect.signature(flow.execute.fn).parameters) == deployments.PARAMETERS
    assert tuple(ticket._PARAMETERS) == deployments.PARAMETERS


@pytest.mark.parametrize("settings", [InstanceSettings, WorkerSettings])
def test_programs_use_one_work_pool_unless_another_is_configured(
    settings: type[InstanceSettings | WorkerSettings],
) -> None:
    assert settings.model_fields["work_pool"].default == deployments.WORK_POOL


def test_the_pages_state_the_tag_of_an_installation() -> None:
    assert f"`{deployments.installation_tag('<id>')}`" in page("instances.md")


def test_no_program_spells_tags_of_its_own() -> None:
    folders = [ROOT / "services", ROOT / "deploy", ROOT / "shared"]
    sources = [path for folder in folders for path in folder.rglob("*.py") if path.name != "deployments.py"]
    assert sources
    found: list[Path] = [
        path for path in sources if any(text in path.read_text() for text in ('f"flow:{', 'f"installation:{'))
    ]
    assert not found
