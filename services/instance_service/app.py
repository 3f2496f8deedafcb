"""The composition root of instance-service: wiring only."""

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
)
from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import Deployments, Experiments, Projects
from instance_service.prefect_adapter import PrefectDeployments
from instance_service.reconcile import (
    DeploymentPairing,
    DriftWatch,
    ExperimentPairing,
    Pairing,
    PlanWatch,
    ProjectPairing,
    Reconciler,
)
from instance_service.store import installation
from instance_service.use_cases.access import reading as access_reading
from instance_service.use_cases.definitions.plugins import publish_plugins
from instance_service.use_cases.dependencies import Dependencies
from optaic.definition.v1 import definition_service_pb2 as definition_api
from optaic.definition.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from optaic.instance.v1 import access_service_pb2 as access_api
from optaic.instance.v1 import data_removal_service_pb2 as data_removal_api
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.access_service_pb2_grpc import add_AccessServiceServicer_to_server
from optaic.instance.v1.data_removal_service_pb2_grpc import add_DataRemovalServiceServicer_to_server
from optaic.instance.v1.instance_service_pb2_grpc import add_InstanceServiceServicer_to_server
from optaic.rules.events import INSTANCE_EVENTS, STREAMS
from servicekit import app
from servicekit.admission import Admission
from servicekit.app import App
from servicekit.audit.trail import AuditTrail
from servicekit.auth import make_authenticator
from servicekit.bindings import RoleBindings
from servicekit.broker import Broker
from servicekit.clock import SystemClock
from servicekit.comparison import Comparison
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.loop import Loop
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.signing import load_signer
from servicekit.tenant_streams import TenantStreams
from servicekit.tokens import ReadTokens

NAME = "instance-service"
_ACCESS = access_api.DESCRIPTOR.services_by_name["AccessService"].full_name
_DEFINITIONS = definition_api.DESCRIPTOR.services_by_name["DefinitionService"].full_name
_DATA_REMOVALS = data_removal_api.DESCRIPTOR.services_by_name["DataRemovalService"].full_name
_INSTANCES = instance_api.DESCRIPTOR.services_by_name["InstanceService"].full_name


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
    database = Database(settings)
    async with database.infra() as connection:
        installation_id = await installation.get_or_create(connection, new_id())
    broker = Broker(settings, {INSTANCE_EVENTS: STREAMS[INSTANCE_EVENTS]}, NAME)
    deps = Dependencies(
        database,
        SystemClock(),
        new_id,
        await load_signer(database),
        installation_id,
        settings.activation_wait_seconds,
        # Calls that wait take at most half of the places, so that others are not refused because of them.
        places=asyncio.Semaphore(settings.maximum_concurrent_rpcs // 2),
        data_grace_seconds=settings.data_grace_seconds,
    )
    relay = Relay(database, broker)
    trail = AuditTrail(database, deps.signer, deps.clock)
    pairings: list[Pairing] = [
        DeploymentPairing(outside.deployments, installation_id),
        ExperimentPairing(outside.experiments, installation_id),
        ProjectPairing(outside.projects, installation_id),
    ]
    reconciler = Reconciler(deps, pairings)
    reconcile_loop = Loop("reconcile", settings.reconcile_interval_seconds, reconciler.step)
    plans = PlanWatch(deps, outside.deployments, settings.planning_grace_seconds)
    drift = DriftWatch(deps, pairings, reconcile_loop.wake, plans)
    drift_loop = Loop("drift", settings.drift_interval_seconds, drift.step)
    database.on_appended(reconcile_loop.wake)
    comparison = Comparison(broker, NAME, settings.comparison_grace_seconds)
    comparing = Comparing(deps, comparison, settings.tenants, lambda: relay.is_leader)
    comparison_loop = Loop("comparison", settings.comparison_interval_seconds, comparing.step)
    comparing.listen(comparison_loop.wake)
    server = Server(
        settings,
        NAME,
        "instance.optaic",
        [
            (add_AccessServiceServicer_to_server, AccessServicer(deps), _ACCESS),
            (add_DefinitionServiceServicer_to_server, DefinitionServicer(deps), _DEFINITIONS),
            (
                add_InstanceServiceServicer_to_server,
                InstanceServicer(
                    deps,
                    outside.experiments,
                    # Only what looks at outputs waits for the events of runs.
                    ReadTokens(database, {"run": (RUN_CONSUMER,)}),
                ),
                _INSTANCES,
            ),
            (
                add_DataRemovalServiceServicer_to_server,
                DataRemovalServicer(deps),
                _DATA_REMOVALS,
            ),
        ],
        Admission(
            make_authenticator(settings),
            RoleBindings(database),
            lambda tenant_id, ids: access_reading.locate(deps, tenant_id, ids),
        ),
        ReadTokens(database, {}),
        dependencies={"postgres": database.ping},
        observed={
            "nats": broker.ping,
            "prefect": outside.deployments.ping,
            "mlflow": outside.experiments.ping,
            "evidently": outside.projects.ping,
        },
        trail=trail,
        on_stop=deps.activated.close,
    )
    background = {
        "relay": relay.run,
        **trail.background,
        **{consumer.name: consumer.run for consumer in build_consumers(deps, broker)},
        "reconcile": reconcile_loop.run,
        "drift": drift_loop.run,
        "comparison": comparison_loop.run,
        "tenant-streams": TenantStreams(broker, settings.tenants, list(STREAMS)).run,
    }
    return App(
        deps,
        server,
        background,
        open=[database.open, lambda: publish_plugins(deps, settings.tenants), broker.connect],
        close=[reconciler.close, trail.denials.close, *outside.close, broker.close, database.close],
    )


async def main(stop: asyncio.Event) -> None:
    """Run the service until `stop` is set."""
    settings = Settings()
    deployments = PrefectDeployments(
        settings.prefect_api_url,
        settings.work_pool,
        settings.prefect_timeout_seconds,
        api_key=settings.prefect_api_key,
        auth_string=settings.prefect_auth_string,
    )
    experiments = MlflowExperiments(
        settings.mlflow_url,
        settings.mlflow_timeout_seconds,
        token=settings.mlflow_token,
        username=settings.mlflow_username,
        password=settings.mlflow_password,
    )
    projects = EvidentlyProjects(settings.evidently_workspace, settings.evidently_timeout_seconds)
    outside = Outside(deployments, experiments, projects, close=[deployments.close, experiments.close])
    await app.start(stop, NAME, settings, lambda: build(settings, outside))
