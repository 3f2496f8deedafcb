"""The rights to publish and read on NATS: the accounts and logins, for the embedded server and for a server of your own.

The services share one account. Each service has a login with exactly its subjects. Each tenant has an account of its own
with one stream, `EVENTS`, which the server fills from the services' streams with the tenant's events. Its subscribers live
there: events of other tenants, the services' streams and their consumers do not exist in a tenant's account.

`devstack.nats_configuration` prints the same for a server of your own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devstack.identities import OPERATOR_URI, service_uri, subscriber_uri
from optaic.rules.events import (
    CONSUMERS,
    INSTANCE_EVENTS,
    LINEAGE_EVENTS,
    RUN_EVENTS,
    STATUS_EVENTS,
    STREAMS,
)

SERVICES_ACCOUNT = "OPTAIC"
# What servicekit calls the same; a test compares them, because the stack is started without the services' code.
DEAD_LETTERS, DEAD_LETTER_ROOT = "DEAD_LETTERS", "optaic-dead"
OPERATORS_INBOX = "_INBOX_OPERATOR"
TENANT_STREAM = "EVENTS"
STREAM_ACTIONS = ("CREATE", "UPDATE")
SOURCE_ROOT, DELIVERY_ROOT = "optaic-source", "optaic-deliver"
TENANT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SUBSCRIBER, OPERATOR = "subscriber", "operator"

Password = Callable[[str], str] | None  # of a login; None: a login is who its certificate says


def inbox_of(service: str) -> str:
    """Return the prefix of the subjects on which a service's login receives answers."""
    return f"_INBOX_{service.upper()}"


def management_subject(tenant: str, action: str) -> str:
    """Return the subject in the services' account by which a tenant's stream is created or updated."""
    return f"optaic-tenants.{tenant}.STREAM.{action}.{TENANT_STREAM}"


def replay_subject(consumer: str) -> str:
    """Return the subject on which a consumer takes requests for replays."""
    return f"optaic-replay.{consumer}"


@dataclass(frozen=True)
class ServiceLogin:
    """The rights of one service: its stream, its consumers with the stream of each, its part in comparisons."""

    stream: str
    consumers: Mapping[str, str]
    says: Sequence[str]
    hears: Sequence[str]
    publishes: Sequence[str] = ()


LOGINS: Mapping[str, ServiceLogin] = {
    "instance": ServiceLogin(
        INSTANCE_EVENTS,
        CONSUMERS["instance"],
        ["*.instances.page", "*.role_bindings.page", "*.runs.wanted", "now", "ended"],
        [">"],  # the command that starts a comparison counts what all services ask for
        [
            f"$JS.API.STREAM.UPDATE.{DEAD_LETTERS}",
            *(management_subject("*", action) for action in STREAM_ACTIONS),
            *(f"$JS.API.STREAM.INFO.{stream}" for stream in STREAMS if stream != INSTANCE_EVENTS),
        ],
    ),
    "run": ServiceLogin(
        RUN_EVENTS,
        CONSUMERS["run"],
        ["*.runs.page", "*.role_bindings.wanted"],
        ["*.instances.page", "*.role_bindings.page", "*.runs.wanted"],
    ),
    "lineage": ServiceLogin(
        LINEAGE_EVENTS,
        CONSUMERS["lineage"],
        ["*.flows.page", "*.instances.wanted", "*.role_bindings.wanted", "*.runs.wanted"],
        ["*.instances.page", "*.role_bindings.page", "*.runs.page", "*.flows.wanted"],
    ),
    "status": ServiceLogin(
        STATUS_EVENTS,
        CONSUMERS["status"],
        ["*.instances.wanted", "*.role_bindings.wanted", "*.flows.wanted"],
        ["*.instances.page", "*.role_bindings.page", "*.flows.page"],
        ["optaic-live.>"],
    ),
}


def subscriber_of(tenant: str) -> str:
    """Return the name of a tenant's read-only login; the one of the tenant `default` kept its name from earlier releases."""
    return SUBSCRIBER if tenant == "default" else f"{SUBSCRIBER}-{tenant}"


def logins_of(tenants: Sequence[str]) -> list[str]:
    """Return every login of a server with these tenants."""
    return [*LOGINS, OPERATOR, *(subscriber_of(tenant) for tenant in tenants)]


def make_accounts(tenants: Sequence[str], password: Password) -> dict[str, Any]:
    """Return the section `accounts` of a server's configuration; without passwords, of one that maps certificates.

    Raises:
        ValueError: A tenant's name cannot be part of a subject.
    """
    for tenant in tenants:
        if TENANT_PATTERN.fullmatch(tenant) is None:
            raise ValueError(f"{tenant!r} is no tenant: use letters, digits, - and _")
    return {
        SERVICES_ACCOUNT: _make_services_account(tenants, password),
        **{account_of(tenant): _make_tenant_account(tenant, password) for tenant in tenants},
    }


def account_of(tenant: str) -> str:
    """Return the name of a tenant's account."""
    return f"TENANT_{tenant}"


def _make_services_account(tenants: Sequence[str], password: Password) -> dict[str, Any]:
    every = [account_of(tenant) for tenant in tenants]
    exports: list[dict[str, Any]] = [
        {"service": f"$JS.FC.{stream}.>", "accounts": every} for stream in STREAMS
    ]
    imports: list[dict[str, Any]] = []
    for tenant in tenants:
        only = [account_of(tenant)]
        exports += [{"stream": subject, "accounts": only} for subject in _heard_by(tenant)]
        exports += [{"service": _sourcing(stream, tenant), "accounts": only} for stream in STREAMS]
        imports += [
            {
                "service": {"account": account_of(tenant), "subject": _managing(action)},
                "to": management_subject(tenant, action),
            }
            for action in STREAM_ACTIONS
        ]
    operator = {
        **_credentials(OPERATOR, OPERATOR_URI, password),
        "permissions": {
            "publish": {
                "allow": [
                    *(f"$JS.API.STREAM.MSG.{action}.{DEAD_LETTERS}" for action in ("GET", "DELETE")),
                    replay_subject("*"),
                ]
            },
            "subscribe": {"allow": [f"{OPERATORS_INBOX}.>"]},
        },
    }
    return {
        "jetstream": "enabled",
        "users": [*(_make_service_user(name, login, password) for name, login in LOGINS.items()), operator],
        "exports": exports,
        "imports": imports,
    }


def _make_service_user(name: str, login: ServiceLogin, password: Password) -> dict[str, Any]:
    publish = [
        *STREAMS[login.stream],
        *(f"{DEAD_LETTER_ROOT}.{consumer}.>" for consumer in login.consumers),
        f"{OPERATORS_INBOX}.>",
        *(f"optaic-compare.{topic}" for topic in login.says),
        *login.publishes,
        *(f"$JS.API.STREAM.{action}.{login.stream}" for action in ("CREATE", "UPDATE", "INFO")),
        # Whoever changes the stream of dead letters, or deletes from it, can remove those of other services.
        *(f"$JS.API.STREAM.{action}.{DEAD_LETTERS}" for action in ("CREATE", "INFO", "MSG.GET")),
    ]
    for consumer, stream in login.consumers.items():
        publish += [
            f"$JS.API.CONSUMER.{action}.{stream}.{consumer}"
            for action in ("DURABLE.CREATE", "INFO", "MSG.NEXT", "DELETE")
        ]
        publish.append(f"$JS.ACK.{stream}.{consumer}.>")
    subscribe = [
        f"{inbox_of(name)}.>",
        *(f"optaic-compare.{topic}" for topic in login.hears),
        *(replay_subject(consumer) for consumer in login.consumers),
    ]
    permissions = {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}}
    return {**_credentials(name, service_uri(name), password), "permissions": permissions}


def _credentials(login: str, uri: str, password: Password) -> dict[str, str]:
    """Return how the server knows a login; with certificates the user is the URI in it."""
    return {"user": uri} if password is None else {"user": login, "password": password(login)}


def _make_tenant_account(tenant: str, password: Password) -> dict[str, Any]:
    publish = [
        *("$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST"),
        *(f"$JS.API.STREAM.{action}.{TENANT_STREAM}" for action in ("INFO", "MSG.GET")),
        *(f"$JS.API.DIRECT.GET.{TENANT_STREAM}{rest}" for rest in ("", ".>")),
        *(f"$JS.API.CONSUMER.CREATE.{TENANT_STREAM}{rest}" for rest in ("", ".>")),
        *(
            f"$JS.API.CONSUMER.{action}.{TENANT_STREAM}.*"
            for action in ("DURABLE.CREATE", "INFO", "MSG.NEXT", "DELETE")
        ),
        *(f"$JS.{kind}.{TENANT_STREAM}.>" for kind in ("ACK", "FC")),
    ]
    subscribe = ["_INBOX.>", f"optaic.{tenant}.>", "optaic.>", f"optaic-live.{tenant}.>", "optaic-live.>"]
    user = {
        **_credentials(subscriber_of(tenant), subscriber_uri(tenant), password),
        "permissions": {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}},
    }
    services = {"account": SERVICES_ACCOUNT}
    return {
        "jetstream": {"max_streams": 1, "max_consumers": 500},
        "users": [user],
        "exports": [
            {"service": _managing(action), "accounts": [SERVICES_ACCOUNT]} for action in STREAM_ACTIONS
        ],
        "imports": [
            *({"stream": {**services, "subject": subject}} for subject in _heard_by(tenant)),
            *(
                {
                    "service": {**services, "subject": _sourcing(stream, tenant)},
                    "to": _sourcing(stream, tenant).replace("$JS.API", SOURCE_ROOT),
                }
                for stream in STREAMS
            ),
            *({"service": {**services, "subject": f"$JS.FC.{stream}.>"}} for stream in STREAMS),
        ],
    }


def _heard_by(tenant: str) -> list[str]:
    """Return what flows from the services' account into a tenant's: events, live statuses, and what fills its stream."""
    return [f"optaic.{tenant}.>", f"optaic-live.{tenant}.>", f"{DELIVERY_ROOT}.{tenant}.>"]


def _sourcing(stream: str, tenant: str) -> str:
    """Return the request by which the server reads the tenant's part of a stream; no login may publish it."""
    return f"$JS.API.CONSUMER.CREATE.{stream}.*.optaic.{tenant}.>"


def _managing(action: str) -> str:
    return f"$JS.API.STREAM.{action}.{TENANT_STREAM}"
