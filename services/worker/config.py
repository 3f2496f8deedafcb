"""Settings of the worker, read from the environment once; no other module of the worker reads it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import psutil
from pydantic import Field, ValidationInfo, field_validator, model_validator

from optaic import storage
from optaic.rules.deployments import WORK_POOL, work_pool_of
from optaic.rules.locations import normalize_root
from redaction import PREFIX, redact_urls
from servicekit.evidently import EvidentlySettings
from servicekit.mlflow import MlflowSettings
from servicekit.object_store import ObjectStoreSettings
from servicekit.prefect import PrefectSettings
from worker.limits import Limits
from worker.sources.policy import (
    DIALECTS,
    SourcePolicy,
    check_binding,
    check_dialect,
    check_host_pattern,
    check_scheme,
)

CodeCheck = Literal["auto", "refuse", "warn"]
_FIRST_UID, _LAST_UID = 1000, 2**31 - 2


class Settings(PrefectSettings, MlflowSettings, EvidentlySettings, ObjectStoreSettings):
    """Environment variables are the field names in upper case after `OPTAIC_`."""

    instance_address: str = Field(description="host:port of instance-service.")
    run_address: str = Field(description="host:port of run-service.")
    executor_token: str = Field(
        default="",
        repr=False,
        description="The worker's identity: a token with the role executor of its tenant. Empty: the certificate says who it is.",
    )
    data_root: str = Field(
        description="Folder or URI without credentials, below which all tenants' data lives."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    work_pool: str = Field(
        default=WORK_POOL,
        min_length=1,
        description="Work pool of the tenant `default`; the worker of another tenant polls <this pool>-<tenant>. It is created if "
        "it does not exist.",
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
        description="Time between two polls of the work pool; five times as long while run-service tells the worker of new flow "
        "runs; after failures it grows to 5 s.",
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
        description="JSON list with one name: the tenant that this worker serves. It refuses flow runs of others.",
    )
    data_removal_interval_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Time between two checks for data of deleted instances to remove; the first check is within a minute.",
    )
    leftover_sweep: Literal["remove", "show", "off"] = Field(
        default="remove",
        description="What becomes of files older than a day that no run and no version has: remove, show (in the log only), off.",
    )
    leftover_sweep_interval_seconds: float = Field(
        default=21600.0,
        gt=0,
        description="Time between two searches for such files; the first is after an hour, or this time if it is shorter.",
    )
    probe_poll_seconds: float = Field(
        default=15.0, gt=0, description="Time between two checks for sources that are due to be probed."
    )
    probes_at_once: int = Field(
        default=2,
        gt=0,
        le=100,
        description="Number of sources probed at once; each takes one minute at most.",
    )

    child_environment: tuple[str, ...] = Field(
        default=(),
        description="JSON list: variables of the worker's environment that processes of user code get, besides those "
        "of the system and of the libraries. They get no others.",
    )

    child_isolation: Literal["auto", "uid", "namespace", "none"] = Field(
        default="auto",
        description="How processes of user code are kept apart from the worker's files. uid: another user, for a worker of root; "
        "namespace: a view of their own of files and processes; none: not at all. auto: what the machine allows; the "
        "others end the worker at its start where they are impossible.",
    )
    child_uids: str = Field(
        default="1900000000-1909999999",
        pattern=r"^[1-9][0-9]{0,9}-[1-9][0-9]{0,9}$",
        description="Range of users from which the tenant's name chooses the one that executes the tenant's code.",
    )
    child_readable: tuple[str, ...] = Field(
        default=(),
        description="JSON list: files and folders that user code may read, although they lie in the home of the worker's user "
        "or another folder that it does not see.",
    )
    child_writable: tuple[str, ...] = Field(
        default=(),
        description="JSON list: folders that user code may write to, besides its run's output and temporary folder. Its user "
        "needs the right to do so.",
    )

    run_timeout_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long a run may compute whose instance's schedule has no `timeout`; 0: without limit.",
    )
    child_memory_bytes: int = Field(
        default_factory=lambda: psutil.virtual_memory().total // 10 * 9,
        ge=0,
        description="Memory of one run's processes together, at least a few hundred megabytes: Python and its libraries count. 0: "
        "without limit. By default nine tenths of the machine's.",
    )
    child_cpu_seconds: float = Field(
        default=0.0, ge=0, description="Processor time of one run's processes together; 0: without limit."
    )
    child_processes: int = Field(
        default_factory=lambda: 1000 + 64 * (os.cpu_count() or 1),
        ge=0,
        description="Number of processes and threads of one run; 0: without limit. By default 1000, and 64 for each processor.",
    )
    child_temporary_bytes: int = Field(
        default=16 * 1024**3,
        ge=0,
        description="Size of one run's temporary files, copies of SQLite databases included; 0: without limit.",
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

    telemetry_folder: str = Field(
        default_factory=lambda: f"{tempfile.gettempdir()}/optaic-telemetry-{os.getuid()}",
        description="Folder on this machine for what runs owe MLflow and Evidently while these are away. Name one that survives a "
        "restart of the machine.",
    )
    telemetry_entries: int = Field(
        default=10_000,
        gt=0,
        description="Number of entries of that folder; what a run owes beyond it is dropped, and the run says so.",
    )
    telemetry_patience_seconds: float = Field(
        default=15.0,
        ge=0,
        description="How long a run waits for MLflow or Evidently before it completes without them.",
    )
    run_log_bytes: int = Field(
        default=10 * 1024 * 1024,
        gt=0,
        description="How much of what one run prints and logs is sent to Prefect; what follows is only in the run's output file.",
    )

    source_schemes: tuple[str, ...] = Field(
        default=("file", "https", "s3"),
        description="JSON list: what the pipeline `file` may read: file (below `OPTAIC_SOURCE_ROOTS`), https, s3, http.",
    )
    source_roots: tuple[str, ...] = Field(
        default=(),
        description="JSON list: folders below which `file` and SQLite may read; the embedded stack names the user's home "
        "and the working folder.",
    )
    source_excluded: tuple[str, ...] = Field(
        default=(),
        description="JSON list: folders within those that are not read, for example of OptAIC's own data.",
    )
    source_hosts: tuple[str, ...] = Field(
        default=("*",),
        description="JSON list: hosts that may be read by https, s3 and SQL: name, *.domain or *, each with :port if "
        "wanted. Only public addresses of these are read.",
    )
    source_private_hosts: tuple[str, ...] = Field(
        default=(),
        description="JSON list: hosts that may be read although their address is of this machine or a private network: "
        "name or name:port.",
    )
    source_http_hosts: tuple[str, ...] = Field(
        default=(), description="JSON list: hosts that may be read by http, without encryption."
    )
    source_dialects: tuple[str, ...] = Field(
        default=DIALECTS,
        description="JSON list: databases that the pipeline `sql` may read, as SQLAlchemy calls them.",
    )
    source_secrets: dict[str, tuple[str, ...]] = Field(
        default={},
        description="JSON object: secrets and the destinations that each may be sent to, for example "
        '{"OPTAIC_SECRET_WAREHOUSE": ["postgresql://db.example.com"]}.',
    )
    source_max_bytes: int = Field(
        default=4 * 1024**3, gt=0, description="The most bytes of one source, also when it is unpacked."
    )
    source_connect_seconds: float = Field(
        default=10.0, gt=0, description="Time in which a source has to be found and connected."
    )
    source_total_seconds: float = Field(
        default=3600.0, gt=0, description="Time in which a source has to be read."
    )
    secrets_folder: str = Field(
        default="",
        description="Folder with a folder for each tenant, with a file for each secret, for example "
        "default/OPTAIC_SECRET_WAREHOUSE; empty: secrets are variables of the worker only.",
    )

    @field_validator("data_root")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """Check that URIs are absolute and have no credentials, because every run shows them."""
        if redact_urls(value) != value:
            way = "set OPTAIC_S3_ACCESS_KEY_ID and OPTAIC_S3_SECRET_ACCESS_KEY, or the variables that its library reads"
            raise ValueError(f"the URI must not contain credentials; {way}")
        return normalize_root(value)

    @field_validator("source_schemes")
    @classmethod
    def _known_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Check that sources have these schemes."""
        return tuple(map(check_scheme, value))

    @field_validator("source_dialects")
    @classmethod
    def _safe_dialects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Check that no query of these opens files of the worker."""
        return tuple(map(check_dialect, value))

    @field_validator("source_hosts", "source_private_hosts", "source_http_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Check the patterns; only public hosts may be allowed without a name."""
        is_named = info.field_name != "source_hosts"
        return tuple(check_host_pattern(pattern, by_name=is_named) for pattern in value)

    @field_validator("child_uids")
    @classmethod
    def _users(cls, value: str) -> str:
        """Check that the range has users, and ordinary ones only."""
        first, last = map(int, value.split("-"))
        if not _FIRST_UID <= first <= last <= _LAST_UID:
            raise ValueError(f"{value!r} is not a range of users from {_FIRST_UID} to {_LAST_UID}")
        return value

    @field_validator("source_roots", "source_excluded", "child_readable", "child_writable")
    @classmethod
    def _folders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Make the folders absolute."""
        return tuple(str(Path(folder).expanduser().absolute()) for folder in value)

    @field_validator("source_secrets")
    @classmethod
    def _bindings(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Check the names and destinations."""
        for name, destinations in value.items():
            if not name.startswith(PREFIX):
                raise ValueError(f"{name!r} is no secret; its name must begin with {PREFIX}")
            for destination in destinations:
                check_binding(destination)
        return value

    @property
    def source_policy(self) -> SourcePolicy:
        """The policy for the sources that runs may read."""
        return SourcePolicy(
            schemes=self.source_schemes,
            roots=self.source_roots,
            excluded=self.source_excluded,
            hosts=self.source_hosts,
            private_hosts=self.source_private_hosts,
            http_hosts=self.source_http_hosts,
            dialects=self.source_dialects,
            secrets=self.source_secrets,
            max_bytes=self.source_max_bytes,
            connect_seconds=self.source_connect_seconds,
            total_seconds=self.source_total_seconds,
        )

    @model_validator(mode="after")
    def _executor_of_one_tenant(self) -> Self:
        """Check that the worker serves one tenant and has an identity, which acts for this tenant only."""
        if len(self.tenants) != 1:
            raise ValueError(
                "OPTAIC_TENANTS must name exactly one tenant, because a worker serves one tenant; run one worker for each tenant"
            )
        if not (self.executor_token or self.tls_certificate):
            raise ValueError(
                "OPTAIC_EXECUTOR_TOKEN is missing; set it to a token with the role executor of the worker's tenant, or set "
                "OPTAIC_TLS_CERTIFICATE to the worker's certificate (OPTAIC_SERVICE_TOKEN is for services only)"
            )
        return self

    @property
    def tenant_id(self) -> str:
        """The tenant that the worker serves."""
        return self.tenants[0]

    @property
    def storage(self) -> storage.Access:
        """The access to the object store of all data. It reads a file.

        Raises:
            OSError: The file of the secret cannot be read.
        """
        return storage.Access(**self.describe_access())

    @property
    def bounds(self) -> Limits:
        """The limits of one run's processes."""
        return Limits(
            self.child_memory_bytes, self.child_cpu_seconds, self.child_processes, self.child_temporary_bytes
        )

    @property
    def log_folder(self) -> Path:
        """The folder for what runs have printed and logged and Prefect does not have yet."""
        return Path(self.run_output_folder) / f"unsent-{self.tenant_id}"

    @property
    def own_work_pool(self) -> str:
        """The work pool of the worker's tenant."""
        return work_pool_of(self.work_pool, self.tenant_id)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that libraries read from the environment, once, when they are imported for the first time."""
        return {
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # These start threads when they are imported, which a process that forks must not have: OpenBLAS,
            # and the allocators inside of Polars and Arrow.
            "OPENBLAS_NUM_THREADS": "1",
            "_RJEM_MALLOC_CONF": "background_thread:false",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
        }
