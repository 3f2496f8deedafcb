"""The addresses and logins of everything in one stack, derived in this one place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from devstack import nats, nats_accounts, ports, postgres
from devstack.config import SERVICES, Settings
from devstack.state import State


class NoStackError(RuntimeError):
    """No stack was found, so its addresses are unknown."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses, URLs and logins of a stack."""

    instance: str
    run: str
    lineage: str
    status: str
    prefect_api: str
    prefect_ui: str
    mlflow: str
    evidently_workspace: str
    nats: str
    nats_subscriber: str
    nats_subscriber_user: str
    nats_subscriber_password: str
    nats_subscribers: Mapping[str, str]  # by tenant; each reads the events of its tenant only
    nats_monitor: str
    postgres_admin: str
    data_root: str
    service_token: str
    auth: str
    tokens_file: str
    executor_tokens_file: str

    @classmethod
    def derive(
        cls, settings: Settings, state: State, chosen: Mapping[str, int], secrets: Mapping[str, str]
    ) -> Self:
        """Derive all addresses from the settings, the chosen ports and the passwords."""
        prefect = settings.prefect_api_url.rstrip("/") or f"http://{ports.HOST}:{chosen['prefect']}/api"
        logins = {tenant: nats_accounts.subscriber_of(tenant) for tenant in settings.tenants}
        passwords = state.draw_secrets(f"nats_{login}" for login in logins.values())
        subscribers = {
            tenant: nats.make_url(chosen["nats"], login, passwords[f"nats_{login}"])
            for tenant, login in logins.items()
        }
        first = logins[settings.tenants[0]]
        return cls(
            **{service: f"{ports.HOST}:{chosen[service]}" for service in SERVICES},
            prefect_api=prefect,
            prefect_ui=prefect.removesuffix("/api"),
            mlflow=settings.mlflow_url.rstrip("/") or f"http://{ports.HOST}:{chosen['mlflow']}",
            evidently_workspace=settings.evidently_workspace or str(state.root / "evidently"),
            nats=settings.nats_url or f"nats://{ports.HOST}:{chosen['nats']}",
            nats_subscriber=settings.nats_url or subscribers[settings.tenants[0]],
            nats_subscriber_user="" if settings.nats_url else first,
            nats_subscriber_password="" if settings.nats_url else passwords[f"nats_{first}"],
            nats_subscribers={} if settings.nats_url else subscribers,
            nats_monitor="" if settings.nats_url else f"http://{ports.HOST}:{chosen['nats_monitor']}",
            postgres_admin=settings.postgres_url
            or postgres.make_url(
                f"{ports.HOST}:{chosen['postgres']}", "postgres", secrets["postgres"], "postgres"
            ),
            data_root=settings.data_root or (state.root / "data").as_uri(),
            service_token=secrets["service_token"],
            auth=settings.auth,
            tokens_file=str((settings.tokens_file or state.root / "tokens.json").absolute()),
            executor_tokens_file=str(state.root / "executors.json"),
        )

    @classmethod
    def load(cls, state: State) -> Self | None:
        """Return the endpoints of the last start, or None before the first start of this version."""
        known: dict[str, Any] = state.load().get("endpoints", {})
        names = {field.name for field in fields(cls)}
        return cls(**known) if set(known) == names else None

    def save(self, state: State) -> None:
        """Store the endpoints for other processes."""
        state.save(endpoints=asdict(self))

    def addresses(self) -> dict[str, str]:
        """Return the environment variables by which services, worker, client and command line find the services."""
        return {f"OPTAIC_{service.upper()}_ADDRESS": getattr(self, service) for service in SERVICES}


def find_nats(settings: Settings, user: str) -> str:
    """Return the configured URL of NATS, or that of a login of the embedded server.

    Raises:
        NoStackError: Neither is there.
    """
    if settings.nats_url:
        return settings.nats_url
    state = State(settings.root)
    endpoints = Endpoints.load(state)
    if endpoints is None:
        raise NoStackError(
            f"there is no stack in {state.root}: start it with `make up`, or set OPTAIC_NATS_URL"
        )
    return endpoints.nats.replace("//", f"//{user}:{state.secrets()[f'nats_{user}']}@", 1)
