"""SubmitRun per second in each way to authenticate, in plaintext and over TLS, in turns, so that the machine is equally busy in each."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.report import Row
from bench.stack import BenchStack, at_rest, create_datasets, for_each, running_services, timed
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_service_pb2, run_service_pb2_grpc
from servicekit.token_files import digest_of
from support.oidc import RSA, ServedIssuer, sign

Metadata = tuple[tuple[str, str], ...]

_CALLERS = 16
_DATASETS = 160
_ROUNDS = 5
_AUDIENCE = "optaic"
_SECONDS = 3600
_TOKEN = "token-of-the-benchmark"


@dataclass(frozen=True)
class _Way:
    """A way to authenticate: its name, the services that know it, and one identity for each caller."""

    name: str
    stack: BenchStack
    instance_ids: Sequence[str]
    callers: Sequence[Metadata]


async def measure_admission() -> list[Row]:
    """The median rate of each way, and how far it falls below that of development."""
    rates: dict[str, list[float]] = {}
    async with _ways() as ways:
        for number in range(_ROUNDS + 1):
            for way in ways:
                rate = await _submit(way)
                if number:  # the first round warms up
                    rates.setdefault(way.name, []).append(rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    plain = medians["development"]
    return [
        Row(f"SubmitRun, {_CALLERS} callers, {name} (peer: development)", rate, "1/s", plain, plain / rate)
        for name, rate in medians.items()
    ]


@asynccontextmanager
async def _ways() -> AsyncIterator[list[_Way]]:
    async with (
        ServedIssuer() as served,
        running_services() as plain,
        running_services(environment=_environment(served.issuer.url)) as signed,
        running_services(environment=_environment(served.issuer.url), tls=True) as encrypted,
    ):
        _admit_a_token(signed)
        _admit_a_token(encrypted)
        plain_ids = await create_datasets(plain, _DATASETS)
        signed_ids = await create_datasets(replace(signed, token=_TOKEN), _DATASETS)
        encrypted_ids = await create_datasets(replace(encrypted, token=_TOKEN), _DATASETS)
        tokens = [_signed_token(served.issuer.url, f"user{number}") for number in range(_CALLERS)]
        yield [
            _Way("development", plain, plain_ids, [plain.metadata()] * _CALLERS),
            _Way("tokens", signed, signed_ids, [_bearer(_TOKEN)] * _CALLERS),
            _Way("OpenID Connect", signed, signed_ids, [_bearer(token) for token in tokens]),
            _Way("TLS, tokens", encrypted, encrypted_ids, [_bearer(_TOKEN)] * _CALLERS),
            _Way("TLS, OpenID Connect", encrypted, encrypted_ids, [_bearer(token) for token in tokens]),
        ]


def _environment(issuer: str) -> Mapping[str, str]:
    return {
        "OPTAIC_AUTH": "oidc",
        "OPTAIC_OIDC_ISSUERS": json.dumps([issuer]),
        "OPTAIC_OIDC_AUDIENCES": json.dumps([_AUDIENCE]),
        "OPTAIC_OIDC_ROLES": json.dumps({"researcher": "researcher"}),
    }


def _admit_a_token(stack: BenchStack) -> None:
    entry = {"tenant": "default", "actor": "bench", "roles": ["researcher", "maintainer"]}
    Path(stack.endpoints.tokens_file).write_text(json.dumps({digest_of(_TOKEN): entry}))


def _signed_token(issuer: str, actor: str) -> str:
    claims = {
        "iss": issuer,
        "aud": _AUDIENCE,
        "sub": actor,
        "exp": int(time.time()) + _SECONDS,
        "tenant": "default",
        "roles": ["researcher"],
    }
    return sign(claims, RSA)


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


async def _submit(way: _Way) -> float:
    """Submit a run of each dataset, and make room for the next round."""
    async with way.stack.open_channel("run") as channel:
        stub: Any = run_service_pb2_grpc.RunServiceStub(channel)
        run_ids: list[str] = []

        async def submit(numbered: tuple[int, str]) -> None:
            number, instance_id = numbered
            request = run_service_pb2.SubmitRunRequest(
                instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH
            )
            metadata = way.callers[number % len(way.callers)]
            run_ids.append((await stub.SubmitRun(request, metadata=metadata, timeout=30)).run_id)

        async def cancel(run_id: str) -> None:
            request = run_service_pb2.CancelRunRequest(run_id=run_id, reason="benchmark")
            await stub.CancelRun(request, metadata=way.callers[0], timeout=30)

        await at_rest(way.stack)
        rate, _ = await timed(submit, list(enumerate(way.instance_ids)), _CALLERS)
        await for_each(cancel, run_ids, _CALLERS)
    return rate
