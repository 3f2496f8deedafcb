"""Read the settings of every service from the environment, once; no other module reads it."""

import ssl
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.plaintext import leaves_in_plaintext
from servicekit.tls import TlsFiles, is_loopback


class TlsSettings(BaseSettings):
    """The TLS settings of every program that connects to services."""

    model_config = SettingsConfigDict(
        env_prefix="OPTAIC_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of this program's own certificate, with those between it and the CA. A service with it serves TLS. "
        "All TLS files are read again when they change.",
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    tls_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs that have signed the certificates of services, and of NATS if its URL begins with `tls://`. "
        "With it, this program connects to services over TLS.",
    )
    https_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs that have signed the certificates of Prefect, MLflow and Centrifugo, where their URLs begin "
        "with `https://`; it is read at the start. None: the CAs that Python's package certifi knows.",
    )
    insecure_plaintext: bool = Field(
        default=False,
        description="Allow connections without TLS beyond this machine, for a network that encrypts by itself.",
    )

    @field_validator(
        "tls_certificate", "tls_key", "tls_ca", "tls_client_ca", "https_ca", mode="before", check_fields=False
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(
                "OPTAIC_TLS_CERTIFICATE and OPTAIC_TLS_KEY belong together: set both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _nothing_leaves_in_plaintext(self) -> Self:
        """Check every setting that names a server: fields that end in `_url` and in `_address`."""
        if self.insecure_plaintext:
            return self
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name.endswith("_address"):
                try:
                    self.client_tls(value)
                except ValueError as error:
                    raise ValueError(f"OPTAIC_{name.upper()}: {error}") from None
            elif name.endswith("_url") and leaves_in_plaintext(value):
                raise ValueError(
                    f"OPTAIC_{name.upper()} would leave this machine without TLS: use https:// or tls://, for PostgreSQL "
                    "?sslmode=verify-full&sslrootcert=<file>, or OPTAIC_INSECURE_PLAINTEXT=true if the network encrypts by itself"
                )
        return self

    def https_context(self) -> ssl.SSLContext | bool:
        """Return whose certificates Prefect, MLflow and Centrifugo may show, as httpx takes it. It reads the file.

        Raises:
            OSError: The file cannot be read.
        """
        return True if self.https_ca is None else TlsFiles(ca=self.https_ca).context()

    def client_tls(self, address: str) -> TlsFiles | None:
        """Return the files for connections to a service; None for plaintext.

        Raises:
            ValueError: The connection would be plaintext and leave this machine.
        """
        if self.tls_ca is not None:
            return TlsFiles(self.tls_certificate, self.tls_key, self.tls_ca)
        if not self.insecure_plaintext and not is_loopback(address):
            raise ValueError(
                f"the connection to {address} would leave this machine without TLS: set OPTAIC_TLS_CA to the file of the CA of "
                "the services, or OPTAIC_INSECURE_PLAINTEXT=true if the network encrypts by itself"
            )
        return None


class ServerSettings(TlsSettings):
    """The settings of every program that listens for calls; each describes `listen` and `auth` itself."""

    shown_certificate: ClassVar[str] = "tls_certificate"  # the setting that names the file of its certificate

    listen: str = "127.0.0.1:0"
    auth: Literal["development", "tokens", "oidc"] = "development"

    @model_validator(mode="after")
    def _development_stays_on_this_machine(self) -> Self:
        if self.auth == "development" and not is_loopback(self.listen):
            raise ValueError(
                "OPTAIC_AUTH=development listens on loopback only, because it asks for no password: set OPTAIC_LISTEN to "
                "127.0.0.1:<port>, or OPTAIC_AUTH=tokens or oidc"
            )
        return self

    @model_validator(mode="after")
    def _plaintext_stays_on_this_machine(self) -> Self:
        name = self.shown_certificate
        if getattr(self, name) is None and not self.insecure_plaintext and not is_loopback(self.listen):
            variable = f"OPTAIC_{name.upper()}"
            raise ValueError(
                f"OPTAIC_LISTEN={self.listen} would serve other machines without TLS: set {variable} and "
                f"{variable.replace('CERTIFICATE', 'KEY')}, or OPTAIC_INSECURE_PLAINTEXT=true if the network encrypts by itself"
            )
        return self


class ServiceSettings(ServerSettings):
    """The settings of every service; each variable is `OPTAIC_` and the field name in upper case."""

    model_config = SettingsConfigDict(
        env_prefix="OPTAIC_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    database_url: str = Field(
        repr=False, description="Requests: login under row-level security, `postgresql+psycopg://` URL."
    )
    database_owner_url: str = Field(
        repr=False, description="Migrations at start: login that owns the tables, same database."
    )
    database_infra_url: str = Field(
        repr=False, description="Outbox, inbox and work queues: login across tenants, same database."
    )
    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        repr=False,
        description="JetStream server: `nats://user:password@host:port`, or `tls://host:port`, to which the service shows its "
        "certificate.",
    )
    listen: str = Field(
        default="127.0.0.1:0", description="host:port of the gRPC server; port 0 takes a free one."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of the CAs that have signed the certificates of clients. With it, each client needs a certificate, and "
        "services and workers are who their certificate says.",
    )
    auth: Literal["development", "tokens", "oidc"] = Field(
        default="development",
        description="`development`: from this machine, the token `development`, or none, is the administrator of the tenant "
        "`default`; the server listens on loopback only. `tokens`: only tokens are accepted, also for health and reflection. `oidc`: the same, "
        "and tokens that an OpenID Connect issuer has signed.",
    )
    tokens_file: Path | None = Field(
        default=None,
        description='JSON file {sha256 hex of token: {"tenant": ..., "actor": ..., "roles": [...]}}; read again when it '
        "changes. Without roles: researcher and maintainer.",
    )
    executor_tokens_file: Path | None = Field(
        default=None, description="The same, for the tokens of workers: its entries have the role executor."
    )
    oidc_issuers: tuple[str, ...] = Field(
        default=(),
        description="JSON list: the issuers whose tokens are accepted, each exactly as it stands in the claim `iss`; https, or http "
        "on this machine.",
    )
    oidc_audiences: tuple[str, ...] = Field(
        default=(), description="JSON list: a token must name one of these in the claim `aud`."
    )
    oidc_roles: dict[str, str] = Field(
        default={},
        description='JSON object {value of the claim of roles: role}, such as {"optaic-users": "researcher"}; other values give '
        "no role.",
    )
    oidc_tenants: dict[str, tuple[str, ...]] = Field(
        default={},
        description="JSON object {issuer: [tenant]}: the tenants that each issuer may name; needed if there are several issuers. "
        "Empty: the issuer may name any.",
    )
    oidc_tenant_claim: str = Field(
        default="tenant",
        min_length=1,
        description="Claim that names the tenant; a name that begins with `/` is a JSON pointer.",
    )
    oidc_actor_claim: str = Field(
        default="sub", min_length=1, description="Claim that names who calls, in the same form."
    )
    oidc_roles_claim: str = Field(
        default="roles",
        min_length=1,
        description="Claim that holds a list of values of `OPTAIC_OIDC_ROLES`, or a text of them with spaces between, in the same "
        "form.",
    )
    oidc_refresh_seconds: float = Field(
        default=300.0,
        ge=30,
        description="Time after which the keys of an issuer are read again; a key that is not known is looked for at once.",
    )
    service_token: str = Field(
        default="",
        repr=False,
        description="Shared by the services; acts for the tenant in metadata `optaic-tenant`. "
        "Empty: no service token is accepted.",
    )
    access_check_seconds: float = Field(
        default=15.0,
        gt=0,
        le=60,
        description="How often the caller of each open stream is checked again; a stream whose caller may no longer read it "
        "ends.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    default_deadline_seconds: float = Field(
        default=30.0, gt=0, description="Deadline of a unary call whose client gave none."
    )
    shutdown_grace_seconds: float = Field(
        default=5.0, ge=0, description="Time for calls under way after SIGTERM; then they are cancelled."
    )
    maximum_concurrent_rpcs: int = Field(
        default=1000, gt=0, description="Calls and watches at once; one more gets RESOURCE_EXHAUSTED."
    )
    maximum_connections: int = Field(
        default=4000,
        gt=0,
        description="Connections of clients at once, or three quarters of the process's descriptors if these are fewer; one more is "
        "closed.",
    )
    tenant_calls_per_second: float = Field(
        default=500.0,
        ge=0,
        description="Calls that the people of one tenant may make per second, and its workers as many; 0: no limit. This and "
        "the next two hold for one process, and not with OPTAIC_AUTH=development, which has one tenant.",
    )
    tenant_calls: int = Field(
        default=200,
        ge=0,
        description="Calls of one tenant's people, or of its workers, at once; 0: no limit.",
    )
    tenant_streams: int = Field(
        default=200,
        ge=0,
        description="Open streams of one tenant's people, or of its workers; 0: no limit.",
    )
    pool_size: int = Field(
        default=8, gt=0, description="Connections for requests; as many calls write at once."
    )
    infra_pool_size: int = Field(
        default=6, gt=1, description="Connections for relay, reconcilers and health; the relay keeps one."
    )
    pool_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Wait for a free connection, within the call's deadline; then the call gets UNAVAILABLE.",
    )
    statement_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Longest time of one SQL statement."
    )
    comparison_grace_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How long a resource that another service has must be lacking here before the next comparison asks for it.",
    )
    health_interval_seconds: float = Field(
        default=2.0, gt=0, description="Time between checks of dependencies."
    )

    def limit_of_tenant(self, limit: int) -> int:
        """Return a limit of each tenant, or 0 for none: development has one tenant, the person at the keyboard."""
        return 0 if self.auth == "development" else limit

    @model_validator(mode="after")
    def _clients_are_asked_over_tls(self) -> Self:
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError(
                "OPTAIC_TLS_CLIENT_CA needs TLS: set OPTAIC_TLS_CERTIFICATE and OPTAIC_TLS_KEY as well"
            )
        return self

    def nats_tls(self) -> TlsFiles | None:
        """Return the files for connections to NATS; None for plaintext."""
        if urlsplit(self.nats_url).scheme != "tls":
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_ca)

    def server_tls(self) -> TlsFiles | None:
        """Return the files of the server; None for plaintext."""
        if self.tls_certificate is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)


class WatchSettings(ServiceSettings):
    """Settings of a service with an RPC that streams changes."""

    watch_poll_seconds: float = Field(
        default=0.5,
        gt=0,
        description="After this time a watch sees a change that another replica made; it sees those of its own replica at once.",
    )
    watch_bookmark_seconds: float = Field(
        default=10.0,
        gt=0,
        description="A watch without a change for this long sends a message: WatchRun the run, unchanged, "
        "WatchInstanceStatuses only the revision.",
    )
