"""Make the tokens with which callers subscribe to live messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from joserfc import jwt
from joserfc.jwk import OctKey

from optaic.rules import realtime
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit import off_loop
from servicekit.context import RequestContext
from servicekit.times import set_time
from status_service.domain.errors import (
    channels_name_tenants,
    instances_not_found,
    realtime_not_configured,
    runs_not_newest,
)
from status_service.store.statuses import fetch_statuses
from status_service.use_cases.dependencies import Dependencies, RealtimeTokens

_ALGORITHM = "HS256"


async def create_realtime_token(
    deps: Dependencies, context: RequestContext, request: api.CreateRealtimeTokenRequest
) -> api.CreateRealtimeTokenResponse:
    """Return tokens for the caller: one to connect, and one for each channel of what it asks for.

    Raises:
        FailedPreconditionError: REALTIME_NOT_CONFIGURED or CHANNELS_NAME_TENANTS.
        NotFoundError: INSTANCE_NOT_FOUND or RUN_NOT_NEWEST, naming every missing id.
    """
    tokens, tenant_id = deps.realtime_tokens, context.tenant_id
    rows = await fetch_statuses(deps.database, tenant_id, set(request.instance_ids))
    missing = set(request.instance_ids) - set(rows)
    if missing:
        raise instances_not_found(missing)
    newest = {
        flow.last_run_id
        for row in rows.values()
        for flow in status_pb2.InstanceStatus.FromString(row.body).flows
    }
    unknown = set(request.run_ids) - newest
    if unknown:
        raise runs_not_newest(unknown)
    if not tokens.key:
        raise realtime_not_configured()
    if request.without_tenant and not realtime.is_known_by_id(tokens.tenants, tenant_id):
        raise channels_name_tenants()
    subscriptions = list(_subscriptions(tenant_id, request))
    response = api.CreateRealtimeTokenResponse()
    now = deps.clock.now()
    set_time(response.expire_time, now + tokens.lifetime)
    user = f"{tenant_id}/{context.actor}"
    response.connection_token, *signed = await off_loop.run(
        _sign, tokens, user, now, [{}, *({"channel": each.channel} for each in subscriptions)]
    )
    for subscription, token in zip(subscriptions, signed, strict=True):
        subscription.token = token
    response.subscriptions.extend(subscriptions)
    return response


def _subscriptions(
    tenant_id: str, request: api.CreateRealtimeTokenRequest
) -> Iterator[api.RealtimeSubscription]:
    """Yield the channels of what a request asks for, each once and without a token."""
    for instance_id in dict.fromkeys(request.instance_ids):
        status = (
            realtime.known_status_channel(instance_id)
            if request.without_tenant
            else realtime.status_channel(tenant_id, instance_id)
        )
        alerts = realtime.alerts_channel(tenant_id, instance_id)
        for topic, channel in ((api.REALTIME_TOPIC_STATUS, status), (api.REALTIME_TOPIC_ALERTS, alerts)):
            yield api.RealtimeSubscription(topic=topic, instance_id=instance_id, channel=channel)
    for run_id in dict.fromkeys(request.run_ids):
        channel = realtime.progress_channel(tenant_id, run_id)
        yield api.RealtimeSubscription(topic=api.REALTIME_TOPIC_PROGRESS, run_id=run_id, channel=channel)


def _sign(tokens: RealtimeTokens, user: str, now: datetime, claims: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a signed token with each of the claims; each is of this user and expires."""
    key = OctKey.import_key(tokens.key)
    issued = int(now.timestamp())
    common = {
        "iss": realtime.ISSUER,
        "aud": realtime.AUDIENCE,
        "sub": user,
        "iat": issued,
        "exp": issued + int(tokens.lifetime.total_seconds()),
    }
    return [jwt.encode({"alg": _ALGORITHM}, {**common, **each}, key) for each in claims]
