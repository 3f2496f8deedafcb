"""The pairings: what each outside system should hold for an instance, and where its ids are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from instance_service.domain.flows import DEPLOYMENTS, EXPERIMENT, PROJECT
from instance_service.ports import (
    Counterpart,
    Counterparts,
    Deployments,
    Experiment,
    Experiments,
    MonitoringProject,
    Projects,
)
from instance_service.resources.conversion import dataset_of
from instance_service.resources.instances.schedules import deployments_of
from instance_service.resources.instances.verdicts import systems_of
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.counterparts import counterpart_name


class Pairing(Protocol):
    """One outside system; `finalizer` names what it holds for an instance, `condition` reports whether it does."""

    finalizer: str
    condition: str

    @property
    def port(self) -> Counterparts[Any]:
        """Return the port of the system."""
        ...

    def desired(self, tenant_id: str, instance: Instance) -> Sequence[Counterpart]:
        """Return everything that the system should hold for an instance; it may be nothing."""
        ...

    def record(self, instance: Instance, ids: Mapping[str, str]) -> None:
        """Write the system's ids, given by name, into the instance."""
        ...


class DeploymentPairing:
    """The pairing with the orchestrator: a deployment for each flow."""

    finalizer = DEPLOYMENTS
    condition = "PrefectDeploymentReady"

    def __init__(self, port: Deployments, installation_id: str) -> None:
        self.port = port
        self._installation_id = installation_id

    def desired(self, tenant_id: str, instance: Instance) -> Sequence[Counterpart]:
        """Return what the outside system should hold; see the protocol."""
        return deployments_of(self._installation_id, tenant_id, instance)

    def record(self, instance: Instance, ids: Mapping[str, str]) -> None:
        """Store the ids that the outside system gave; see the protocol."""
        for flow in instance.flows:
            flow.prefect_deployment_id = ids[flow.prefect_deployment_name]


class ExperimentPairing:
    """The pairing with the tracking server: an experiment for each model, and its champion in the registry."""

    finalizer = EXPERIMENT
    condition = "MlflowExperimentReady"

    def __init__(self, port: Experiments, installation_id: str) -> None:
        self.port = port
        self._installation_id = installation_id

    def desired(self, tenant_id: str, instance: Instance) -> Sequence[Counterpart]:
        """Return what the outside system should hold; see the protocol."""
        if self.finalizer not in systems_of(instance):
            return ()
        name = counterpart_name(tenant_id, instance.instance_id)
        title = f"{instance.name}.{instance.instance_id}"
        champion = instance.model.champion.model_version
        return (Experiment(name, title, champion, self._installation_id),)

    def record(self, instance: Instance, ids: Mapping[str, str]) -> None:
        """Store the ids that the outside system gave; see the protocol."""
        (instance.model.mlflow_experiment_id,) = ids.values()


class ProjectPairing:
    """The pairing with the monitoring workspace: a project for each instance that is monitored."""

    finalizer = PROJECT
    condition = "EvidentlyProjectReady"

    def __init__(self, port: Projects, installation_id: str) -> None:
        self.port = port
        self._installation_id = installation_id

    def desired(self, tenant_id: str, instance: Instance) -> Sequence[Counterpart]:
        """Return what the outside system should hold; see the protocol."""
        if self.finalizer not in systems_of(instance):
            return ()
        name = counterpart_name(tenant_id, instance.instance_id)
        return (MonitoringProject(name, instance.name, self._installation_id),)

    def record(self, instance: Instance, ids: Mapping[str, str]) -> None:
        """Store the ids that the outside system gave; see the protocol."""
        owner = dataset_of(instance) or instance.model
        (owner.evidently_project_id,) = ids.values()
