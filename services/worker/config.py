"""Settings of the worker, read from the environment once; no other module of the worker reads it."""

import os
import tempfile
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from optaic.rules.deployments import WORK_POOL
from optaic.rules.locations import normalize_root
from redaction import redact_urls
from servicekit.prefect import PrefectSettings

CodeCheck = Literal["auto", "refuse", "warn"]


class Settings(PrefectSettings):
    """Environment variables are the field names in upper case after `OPTAIC_`."""

    instance_address: str = Field(description="host:port of instance-service.")
    run_address: str = Field(description="host:port of run-service.")
    service_token: str = Field(
        default="",
        repr=False,
        description="The worker's identity; it acts for the tenant of the flow run. Empty: the development identity.",
    )
    data_root: str = Field(
        description="Folder or URI without credentials, below which all tenants' data lives."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    work_pool: str = Field(
        default=WORK_POOL,
        min_length=1,
        description="Work pool that the worker polls; created if it does not exist.",
    )
    work_pool_type: Literal["optaic-warm", "process"] = Field(
        default="optaic-warm", description="Type of the work pool if the worker creates it."
    )
    concurrency: int = Field(
        default_factory=lambda: 2 * (os.cpu_count() or 2),
        gt=0,
        description="Number of runs executed at once.",
    )
    poll_seconds: float = Field(
        default=0.1,
        gt=0,
        description="Time between two polls of the work pool; after failures it grows to 5 s.",
    )
    cancellation_poll_seconds: float = Field(
        default=2.0, gt=0, description="Time between two checks for flow runs that are cancelled in Prefect."
    )
    worker_grace_seconds: float = Field(
        default=3.0,
        ge=0,
        description="Time that active runs get after SIGTERM; then they are failed and ended.",
    )

    code_check: CodeCheck = Field(
        default="auto",
        description="What becomes of a run whose plugin has other code than is on record for its definition version: "
        "refuse, warn, or auto: warn of editable installs, refuse others.",
    )
    start_patience_seconds: float = Field(
        default=120.0,
        ge=0,
        description="How long the worker retries to start a run and to read its configuration.",
    )
    report_patience_seconds: float = Field(
        default=900.0,
        ge=0,
        description="How long the worker retries to report the end of a run while run-service is away.",
    )

    tenants: tuple[str, ...] = Field(
        default=("default",),
        description="JSON list: the tenants for which this worker removes the data of deleted instances.",
    )
    data_removal_interval_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Time between two checks for data of deleted instances to remove; the first check is within a minute.",
    )

    child_environment: tuple[str, ...] = Field(
        default=(),
        description="JSON list: variables of the worker's environment that processes of user code get, besides those "
        "of the system and of the libraries. They get no others.",
    )

    run_output_folder: str = Field(
        default_factory=lambda: f"{tempfile.gettempdir()}/optaic-run-output-{os.getuid()}",
        description="Folder on this machine for the output of runs, one file for each run.",
    )
    run_output_bytes: int = Field(
        default=8 * 1024 * 1024, gt=0, description="How much of one run's output is kept; the newest part is."
    )
    run_output_runs: int = Field(
        default=100,
        gt=0,
        description="Number of runs whose output is kept; the output of older runs is removed.",
    )

    @field_validator("data_root")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """Check that URIs are absolute and have no credentials, because every run shows them."""
        if redact_urls(value) != value:
            way = "set the environment variables that its library reads, for example AWS_SECRET_ACCESS_KEY"
            raise ValueError(f"the URI must not contain credentials; {way}")
        return normalize_root(value)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that libraries read from the environment, once, when they are imported for the first time."""
        return {
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # These start threads when they are imported, which a process that forks must not have: OpenBLAS,
            # and the allocators inside of Polars and Arrow.
            "OPENBLAS_NUM_THREADS": "1",
            "_RJEM_MALLOC_CONF": "background_thread:false",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
        }
