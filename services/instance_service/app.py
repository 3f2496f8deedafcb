"""Connect the parts of instance-service; decide nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from instance_service.comparing import Comparing
from instance_service.config import Settings
from instance_service.consumers import RUN_CONSUMER, build_consumers
from instance_service.evidently_adapter import EvidentlyProjects
from instance_service.grpc_api import (
    AccessServicer,
    DataRemovalServicer,
    DefinitionServicer,
    InstanceServicer,
    ProbeServicer,
)
from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import Deployments, Experiments, Projects
from instance_service.prefect_adapter import PrefectDeployments
from instance_service.reconcile.drift import DriftWatch
from instance_service.reconcile.pairings import (
    DeploymentPairing,
    ExperimentPairing,
    Pairing,
    ProjectPairing,
)
from instance_service.reconcile.plans import PlanWatch
from instance_service.reconcile.reconciler import Reconciler
from instance_service.store import installation
from instance_service.store.usage import Usage
from instance_service.use_cases.access import reading
from instance_service.use_cases.definitions.plugins import publish_plugins
from instance_service.use_cases.dependencies import Dependencies
from optaic.definition.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from optaic.instance.v1.access_service_pb2_grpc import add_AccessServiceServicer_to_server
from optaic.instance.v1.data_removal_service_pb2_grpc import add_DataRemovalServiceServicer_to_server
from optaic.instance.v1.instance_service_pb2_grpc import add_InstanceServiceServicer_to_server
from optaic.instance.v1.probe_service_pb2_grpc import add_ProbeServiceServicer_to_server
from optaic.rules.events import INSTANCE_EVENTS, STREAMS
from servicekit import app
from servicekit.app import App
from servicekit.loop import Loop
from servicekit.parts import make_parts
from servicekit.tenant_streams import TenantStreams
from servicekit.tokens import ReadTokens

NAME = "instance-service"


@dataclass(frozen=True)
class Outside:
    """The adapters of the outside systems, each behind its port."""

    deployments: Deployments
    experiments: Experiments
    projects: Projects
    close: Sequence[Callable[[], Awaitable[None]]] = ()


async def build(settings: Settings, outside: Outside) -> App[Dependencies]:
    """Build the service without starting it; the first build ever stores a new installation id in the database.

    Raises:
        UnavailableError: The database does not answer.
    """
    parts = await make_parts(NAME, settings, {INSTANCE_EVENTS: STREAMS[INSTANCE_EVENTS]})
    async with parts.database.infra() as connection:
        installation_id = await installation.get_or_create(connection, parts.ids())
    deps = Dependencies(
        parts.database,
        parts.clock,
        parts.ids,
        parts.signer,
        installation_id,
        settings.activation_wait_seconds,
        # Calls that wait take at most half of the places, so that others are not refused because of them.
        places=asyncio.Semaphore(settings.maximum_concurrent_rpcs // 2),
        data_grace_seconds=settings.data_grace_seconds,
        limits=Usage(
            settings.limit_of_tenant(settings.tenant_instances),
            settings.limit_of_tenant(settings.tenant_stored_bytes),
        ),
    )
    pairings: list[Pairing] = [
        DeploymentPairing(outside.deployments, installation_id),
        ExperimentPairing(outside.experiments, installation_id),
        ProjectPairing(outside.projects, installation_id),
    ]
    reconciler = Reconciler(deps, pairings)
    reconcile_loop = Loop("reconcile", settings.reconcile_interval_seconds, reconciler.step)
    parts.database.on_appended(reconcile_loop.wake)
    plans = PlanWatch(deps, outside.deployments, settings.planning_grace_seconds)
    drift = DriftWatch(deps, pairings, reconcile_loop.wake, plans)
    comparing = Comparing(deps, parts.comparison, settings.tenants, lambda: parts.relay.is_leader)
    comparison_loop = Loop("comparison", settings.comparison_interval_seconds, comparing.step)
    comparing.listen(comparison_loop.wake)
    # Only a call that looks at outputs waits for the events of runs.
    waits_for_outputs = ReadTokens(parts.database, {"run": (RUN_CONSUMER,)})
    return parts.assemble(
        deps,
        [
            (add_AccessServiceServicer_to_server, AccessServicer(deps), "optaic.instance.v1.AccessService"),
            (
                add_DefinitionServiceServicer_to_server,
                DefinitionServicer(deps),
                "optaic.definition.v1.DefinitionService",
            ),
            (
                add_InstanceServiceServicer_to_server,
                InstanceServicer(deps, outside.experiments, waits_for_outputs),
                "optaic.instance.v1.InstanceService",
            ),
            (
                add_DataRemovalServiceServicer_to_server,
                DataRemovalServicer(deps),
                "optaic.instance.v1.DataRemovalService",
            ),
            (add_ProbeServiceServicer_to_server, ProbeServicer(deps), "optaic.instance.v1.ProbeService"),
        ],
        build_consumers(deps, parts.broker),
        locate=lambda tenant_id, ids: reading.locate(deps, tenant_id, ids),
        observed={
            "prefect": outside.deployments.ping,
            "mlflow": outside.experiments.ping,
            "evidently": outside.projects.ping,
        },
        loops=[
            reconcile_loop,
            Loop("drift", settings.drift_interval_seconds, drift.step),
            comparison_loop,
        ],
        background={"tenant-streams": TenantStreams(parts.broker, settings.tenants, list(STREAMS)).run},
        before_broker=[lambda: publish_plugins(deps, settings.tenants)],
        close=[reconciler.close, *outside.close],
        on_stop=deps.activated.close,
    )


async def main(stop: asyncio.Event) -> None:
    """Run the service until `stop` is set."""
    settings = Settings()
    certificates = settings.https_context()
    deployments = PrefectDeployments(
        settings.prefect_api_url,
        settings.work_pool,
        settings.prefect_timeout_seconds,
        api_key=settings.prefect_api_key,
        auth_string=settings.prefect_auth_string,
        certificates=certificates,
    )
    experiments = MlflowExperiments(
        settings.mlflow_url,
        settings.mlflow_timeout_seconds,
        token=settings.mlflow_token,
        username=settings.mlflow_username,
        password=settings.mlflow_password,
        certificates=certificates,
    )
    projects = EvidentlyProjects(settings.evidently_workspace, settings.evidently_timeout_seconds)
    outside = Outside(deployments, experiments, projects, close=[deployments.close, experiments.close])
    await app.start(stop, NAME, settings, lambda: build(settings, outside))
