"""The addresses and logins of everything in one stack, derived in this one place."""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from devstack import nats, nats_accounts, ports, postgres, seaweedfs
from devstack.config import SERVICES, Settings
from devstack.logins import make_login, split_login
from devstack.state import State
from optaic.client.certificates import Certificates


def has_gateway() -> bool:
    """Return whether the extra `gateway` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("connectrpc", "granian"))


class NoStackError(RuntimeError):
    """No stack was found, so its addresses are unknown."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses, URLs and logins of a stack."""

    instance: str
    run: str
    lineage: str
    status: str
    gateway: str  # empty: it is not started
    prefect_api: str
    prefect_ui: str
    prefect_login: str  # user:password; empty: a server that is not the stack's own
    mlflow: str
    mlflow_login: str  # the same
    evidently_workspace: str
    nats: str
    nats_subscriber: str
    nats_subscriber_user: str
    nats_subscriber_password: str
    nats_subscribers: Mapping[str, str]  # by tenant; each reads the events of its tenant only
    nats_monitor: str
    centrifugo: str  # empty: the stack has none of its own
    postgres_admin: str
    data_root: str
    s3_root: str  # the data root in the stack's own object store, which data may be moved to or from; empty: there is none
    s3_endpoint: str  # of this object store
    s3_logins: Mapping[str, str]  # access key:secret, by tenant and for run-service
    service_token: str
    auth: str
    tokens_file: str
    executor_tokens_file: str
    certificates: str  # the folder of certificates; empty: no TLS
    https_ca: str  # the file of the CAs of Prefect and MLflow; empty: those of the system

    @classmethod
    def derive(
        cls, settings: Settings, state: State, chosen: Mapping[str, int], secrets: Mapping[str, str]
    ) -> Self:
        """Derive all addresses from the settings, the chosen ports and the passwords."""
        prefect = settings.prefect_api_url.rstrip("/") or f"http://{ports.HOST}:{chosen['prefect']}/api"
        logins = {tenant: nats_accounts.subscriber_of(tenant) for tenant in settings.tenants}
        passwords = state.draw_secrets(f"nats_{login}" for login in logins.values())
        broker = f"{'tls' if settings.tls else 'nats'}://{ports.HOST}:{chosen['nats']}"
        by_password = not settings.nats_url and not settings.tls
        subscribers = {
            tenant: broker
            if settings.tls
            else nats.make_url(chosen["nats"], login, passwords[f"nats_{login}"])
            for tenant, login in logins.items()
        }
        first = logins[settings.tenants[0]]
        has_store = bool(settings.object_store)
        return cls(
            **{service: f"{ports.HOST}:{chosen[service]}" for service in SERVICES},
            gateway=f"http://{ports.HOST}:{chosen['gateway']}" if settings.gateway and has_gateway() else "",
            prefect_api=prefect,
            prefect_ui=prefect.removesuffix("/api"),
            prefect_login="" if settings.prefect_api_url else make_login("prefect", secrets),
            mlflow=settings.mlflow_url.rstrip("/") or f"http://{ports.HOST}:{chosen['mlflow']}",
            mlflow_login="" if settings.mlflow_url else make_login("mlflow", secrets),
            evidently_workspace=settings.evidently_workspace or str(state.root / "evidently"),
            nats=settings.nats_url or broker,
            nats_subscriber=settings.nats_url or subscribers[settings.tenants[0]],
            nats_subscriber_user=first if by_password else "",
            nats_subscriber_password=passwords[f"nats_{first}"] if by_password else "",
            nats_subscribers={} if settings.nats_url else subscribers,
            nats_monitor="" if settings.nats_url else f"http://{ports.HOST}:{chosen['nats_monitor']}",
            centrifugo=f"http://{ports.HOST}:{chosen['centrifugo']}" if settings.centrifugo else "",
            postgres_admin=settings.postgres_url
            or postgres.make_url(
                f"{ports.HOST}:{chosen['postgres']}", "postgres", secrets["postgres"], "postgres"
            ),
            data_root=settings.data_root
            or (seaweedfs.DATA_ROOT if has_store else (state.root / "data").as_uri()),
            s3_root=seaweedfs.DATA_ROOT if has_store else "",
            s3_endpoint=f"http://{seaweedfs.host_of(chosen)}" if has_store else "",
            s3_logins=seaweedfs.make_logins(state, settings.tenants) if has_store else {},
            service_token=secrets["service_token"],
            auth=settings.auth,
            tokens_file=str((settings.tokens_file or state.root / "tokens.json").absolute()),
            executor_tokens_file=str(state.root / "executors.json"),
            certificates=str(state.root / "certificates") if settings.tls else "",
            https_ca=str(settings.https_ca.absolute()) if settings.https_ca else "",
        )

    @classmethod
    def load(cls, state: State) -> Self | None:
        """Return the endpoints of the last start, or None before the first start of this version."""
        known: dict[str, Any] = state.load().get("endpoints", {})
        names = {field.name for field in fields(cls)}
        return cls(**known) if set(known) == names else None

    @classmethod
    def require(cls, state: State) -> Self:
        """Return the endpoints of the last start.

        Raises:
            NoStackError: This version has not been started yet.
        """
        found = cls.load(state)
        if found is None:
            raise NoStackError(
                f"no stack of this version has been started in {state.root}; `optaic dev up` starts one"
            )
        return found

    def save(self, state: State) -> None:
        """Store the endpoints for other processes."""
        state.save(endpoints=asdict(self))

    def addresses(self) -> dict[str, str]:
        """Return the environment variables by which services, worker, client and command line find the services."""
        return {f"OPTAIC_{service.upper()}_ADDRESS": getattr(self, service) for service in SERVICES}

    def prefect_credentials(self) -> dict[str, str]:
        """Return the environment variable by which services and workers log in to the stack's own Prefect."""
        return {"OPTAIC_PREFECT_AUTH_STRING": self.prefect_login} if self.prefect_login else {}

    def mlflow_credentials(self) -> dict[str, str]:
        """Return the environment variables by which instance-service and workers log in to the stack's own MLflow."""
        found = split_login(self.mlflow_login)
        return {"OPTAIC_MLFLOW_USERNAME": found[0], "OPTAIC_MLFLOW_PASSWORD": found[1]} if found else {}

    def s3_credentials(self, holder: str) -> dict[str, str]:
        """Return the environment variables by which a tenant's worker, or run-service, reaches the stack's own object store."""
        if not self.s3_endpoint:
            return {}
        access_key, _, secret = self.s3_logins[holder].partition(":")
        elsewhere = ("REGION", "SECRET_ACCESS_KEY_FILE", "SESSION_TOKEN")
        return {
            **{f"OPTAIC_S3_{name}": "" for name in elsewhere},
            "OPTAIC_S3_PATH_STYLE": "true",
            "OPTAIC_S3_ENDPOINT": self.s3_endpoint,
            "OPTAIC_S3_ACCESS_KEY_ID": access_key,
            "OPTAIC_S3_SECRET_ACCESS_KEY": secret,
        }

    def tls(self, holder: str) -> dict[str, str]:
        """Return the environment variables for TLS of the holder of a certificate; empty ones if the stack has no TLS."""
        names = {"CA": "ca.pem", "CERTIFICATE": f"{holder}.pem", "KEY": f"{holder}.key"}
        return {
            f"OPTAIC_TLS_{name}": str(Path(self.certificates) / file) if self.certificates else ""
            for name, file in names.items()
        }

    def certificates_of(self, holder: str) -> Certificates:
        """Return the certificate of its holder, for connections to services."""
        if not self.certificates:
            return Certificates()
        folder = Path(self.certificates)
        return Certificates(folder / "ca.pem", folder / f"{holder}.pem", folder / f"{holder}.key")

    def probe(self, service: str) -> tuple[str, str, Certificates]:
        """Return the address of a service, and the token or the certificate with which it is asked how it is."""
        token = "" if self.certificates else self.service_token
        return getattr(self, service), token, self.certificates_of(f"{service}-service")

    def nats_context(self, holder: str) -> ssl.SSLContext | None:
        """Return the context in which the holder of a certificate connects to NATS; None without TLS. It reads files."""
        if not self.certificates:
            return None
        folder = Path(self.certificates)
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / f"{holder}.pem", folder / f"{holder}.key")
        return context
