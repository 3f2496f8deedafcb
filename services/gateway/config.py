"""The settings of gateway; no other module reads the environment."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from optaic.rules.locations import find_root_problem, normalize_root
from servicekit.artifact_urls import ArtifactUrlSettings
from servicekit.object_store import ObjectStoreSettings
from servicekit.settings import ServerSettings


class Settings(ObjectStoreSettings, ArtifactUrlSettings, ServerSettings):
    """The settings of the gateway. The TLS settings are those of its connections to the services."""

    shown_certificate: ClassVar[str] = "https_certificate"

    listen: str = Field(
        default="127.0.0.1:0", description="host:port of the HTTP server; port 0 takes a free one."
    )
    auth: Literal["development", "tokens", "oidc"] = Field(
        default="development",
        description="As the services have it. `development`: a call without a token is passed on, and the gateway listens on loopback "
        "only. `tokens`, `oidc`: a call without a token is refused.",
    )
    instance_address: str = Field(default="127.0.0.1:50051", description="host:port of instance-service.")
    run_address: str = Field(default="127.0.0.1:50052", description="host:port of run-service.")
    lineage_address: str = Field(default="127.0.0.1:50053", description="host:port of lineage-service.")
    status_address: str = Field(default="127.0.0.1:50054", description="host:port of status-service.")
    data_root: str = Field(
        default="",
        description="Folder or URI of all data, as the workers have it. Empty: no files of runs are served.",
    )
    further_data_roots: tuple[str, ...] = Field(
        default=(),
        description="JSON list: the folders or URIs to which the data of tenants was moved, as the moves name them. Their files are served, too.",
    )
    https_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate that the HTTP server shows, with those between it and the CA. With it, the gateway serves "
        "HTTPS. It is read at the start.",
    )
    https_key: Path | None = Field(
        default=None, description="PEM file of the private key of that certificate."
    )
    hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "localhost", "[::1]"),
        min_length=1,
        description="JSON list: the names, without port, by which callers may address the gateway; a request with any other header Host "
        "is refused.",
    )
    origins: tuple[str, ...] = Field(
        default=(),
        description="JSON list: the origins of the gateway's own pages where a proxy before it ends TLS, changes the header Host or has another "
        "port, such as `https://optaic.example.com`. Pages of all other origins are refused.",
    )
    maximum_calls: int = Field(default=400, gt=0, description="Calls under way at once, of all callers.")
    caller_calls: int = Field(
        default=50,
        gt=0,
        description="Calls under way at once of one token; or of one address, those without a token and with tokens that no service has "
        "accepted lately.",
    )
    maximum_streams: int = Field(default=500, gt=0, description="Open streams at once, of all callers.")
    caller_streams: int = Field(
        default=50, gt=0, description="Open streams at once, counted as the calls of OPTAIC_CALLER_CALLS."
    )
    maximum_reads: int = Field(
        default=4,
        gt=0,
        description="Reads of rows under way at once, of all callers; each is a process of its own.",
    )
    caller_reads: int = Field(
        default=2,
        gt=0,
        description="Reads of rows under way at once, counted as the calls of OPTAIC_CALLER_CALLS.",
    )
    read_seconds: float = Field(
        default=30.0,
        ge=1,
        description="Longest time of one read of rows or of statistics; its process is then ended.",
    )
    read_memory_bytes: int = Field(
        default=2 * 1024 * 1024 * 1024,
        ge=512 * 1024 * 1024,
        description="Address space that the process of one read may have; usual tables take a tenth of it.",
    )
    maximum_body_bytes: int = Field(
        default=256 * 1024 * 1024,
        gt=0,
        description="Bytes of the bodies of all calls under way; one more byte gets RESOURCE_EXHAUSTED.",
    )
    caller_body_bytes: int = Field(
        default=64 * 1024 * 1024,
        gt=0,
        description="Bytes of the bodies of one caller, counted as the calls of OPTAIC_CALLER_CALLS.",
    )
    body_timeout_seconds: float = Field(
        default=15.0, gt=0, description="Time within which the whole body of a request must have come."
    )
    send_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Time after which a caller that does not read its answer is let go."
    )
    stream_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="Longest time of one stream; then it ends with UNAVAILABLE, and clients open it again where it ended.",
    )
    shutdown_grace_seconds: float = Field(
        default=5.0, ge=0, description="Time for calls under way after SIGTERM; then they are cancelled."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("data_root")
    @classmethod
    def _normalize(cls, value: str) -> str:
        return normalize_root(value) if value else ""

    @field_validator("further_data_roots")
    @classmethod
    def _are_roots(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for root in value:
            if problem := find_root_problem(root):
                raise ValueError(f"{root!r} in OPTAIC_FURTHER_DATA_ROOTS {problem}")
        return value

    @field_validator("https_certificate", "https_key", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _https_has_both_files(self) -> Self:
        if (self.https_certificate is None) != (self.https_key is None):
            raise ValueError(
                "OPTAIC_HTTPS_CERTIFICATE and OPTAIC_HTTPS_KEY belong together: set both, or neither"
            )
        return self

    def data_roots(self) -> frozenset[str]:
        """Return the folders of all data whose files are served."""
        return frozenset({self.data_root, *self.further_data_roots} - {""})

    def addresses(self) -> dict[str, str]:
        """Return the address of each service."""
        return {
            "instance": self.instance_address,
            "run": self.run_address,
            "lineage": self.lineage_address,
            "status": self.status_address,
        }
