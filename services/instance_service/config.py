"""The settings of instance-service; no other module reads the environment."""

from pydantic import Field

from optaic.rules.deployments import WORK_POOL
from servicekit.evidently import EvidentlySettings
from servicekit.mlflow import MlflowSettings
from servicekit.prefect import PrefectCallerSettings
from servicekit.settings import ServiceSettings


class Settings(PrefectCallerSettings, MlflowSettings, EvidentlySettings, ServiceSettings):
    """The settings that instance-service adds to those of every service."""

    work_pool: str = Field(
        default=WORK_POOL,
        min_length=1,
        description="Prefect work pool of the deployments of the tenant `default`; those of another tenant are in "
        "<this pool>-<tenant>.",
    )
    tenants: tuple[str, ...] = Field(
        default=("default",),
        description="JSON list: the tenants for which the service publishes the built-in definitions at start.",
    )
    tenant_instances: int = Field(
        default=100_000,
        ge=0,
        description="Instances that one tenant may have, without components; 0: no limit. Not with OPTAIC_AUTH=development.",
    )
    tenant_stored_bytes: int = Field(
        default=10_737_418_240,
        ge=0,
        description="Bytes of all revisions of instances, definition versions, projects and role bindings of one tenant; 0: no "
        "limit. Not with OPTAIC_AUTH=development.",
    )
    drift_interval_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Time between two comparisons of all instances with Prefect, MLflow and Evidently.",
    )
    planning_grace_seconds: float = Field(
        default=120.0,
        gt=0,
        description="An instance gets the condition SchedulePlanned if Prefect plans no run of its enabled schedule for this long.",
    )
    comparison_interval_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Time between two comparisons of all instances with what the other services know about them.",
    )
    data_grace_seconds: float = Field(
        default=604800.0,
        ge=0,
        description="How long the data of an instance is kept after its deletion; then a worker removes it.",
    )
    reconcile_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two checks of the work queue if no change is announced."
    )
    activation_wait_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Longest wait of CreateInstance for ACTIVE if the caller gives no deadline, "
        "and of PromoteModelVersion for MLflow within its deadline.",
    )
