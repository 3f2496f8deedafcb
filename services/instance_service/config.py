"""The settings of instance-service, read once from the environment."""

from pathlib import Path

from pydantic import Field

from optaic.rules.deployments import WORK_POOL
from servicekit.prefect import PrefectCallerSettings
from servicekit.settings import ServiceSettings


class Settings(PrefectCallerSettings, ServiceSettings):
    """The settings that instance-service has in addition to those of every service."""

    work_pool: str = Field(default=WORK_POOL, description="Prefect work pool that every deployment names.")
    mlflow_url: str = Field(
        default="http://127.0.0.1:5000", description="MLflow's server; it may be down, also at start."
    )
    mlflow_token: str = Field(
        default="", repr=False, description="Bearer token for MLflow; empty: none is sent."
    )
    mlflow_username: str = Field(
        default="", description="User of MLflow's basic authentication, which goes before the token."
    )
    mlflow_password: str = Field(default="", repr=False, description="That user's password.")
    mlflow_timeout_seconds: float = Field(default=5.0, gt=0, description="Longest single call of MLflow.")
    evidently_workspace: Path = Field(
        default=Path("workspace"),
        description="Folder of Evidently's workspace, shared with the worker and Evidently's UI; never made here.",
    )
    evidently_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Longest single use of the workspace."
    )
    tenants: tuple[str, ...] = Field(
        default=("default",), description="JSON list: the tenants that get the built-in definitions at start."
    )
    drift_interval_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Time between comparisons of all instances with Prefect, MLflow and Evidently.",
    )
    planning_grace_seconds: float = Field(
        default=120.0,
        gt=0,
        description="How long Prefect may have planned nothing of an enabled schedule before its instance says so.",
    )
    comparison_interval_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Time between comparisons of all instances with what the other services know of them.",
    )
    data_grace_seconds: float = Field(
        default=604800.0,
        ge=0,
        description="How long the data of an instance stays after the instance is gone; then a worker removes it.",
    )
    reconcile_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between looks at the work queue when nothing wakes it."
    )
    activation_wait_seconds: float = Field(
        default=2.0,
        ge=0,
        description="How long CreateInstance waits for ACTIVE where the caller gives no deadline, "
        "and PromoteModelVersion for MLflow, within the deadline.",
    )
