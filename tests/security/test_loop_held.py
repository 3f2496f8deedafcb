"""No request holds the event loop of a service for more than 50 ms: the largest of every method, and large resources.

Counted is the CPU time of the process between two turns of its loop, the best of several tries, so that a busy machine fails
nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf import json_format

from devstack.postgres import Postgres
from support.broker import NatsAccounts
from support.fuzzing import costly, large
from support.fuzzing.day import Day
from support.fuzzing.holding import MOST_SECONDS, Held, measure
from support.fuzzing.largest import largest
from support.fuzzing.methods import METHODS, Method, find
from support.fuzzing.processes import running_services

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
UNARY = {key: method for key, method in METHODS.items() if not (method.is_stream or method.takes_stream)}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def day(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[Day]:
    """Yield services in which every method was called once; they log no fault."""
    del postgres_server
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_services(nats_accounts.take(), Path(folder)) as services,
            contextlib.aclosing(Day(services)) as day,
        ):
            await day.live()
            assert day.methods_without_sample() == []
            await day.rest()
            yield day
            assert services.faults() == []


def cases(day: Day, method: Method) -> Iterator[tuple[str, bytes]]:
    """Yield the largest requests of a method; not in full, only those in which everything is as large as it may be."""
    for sample in samples(day, method):
        found = dict(largest(method, sample))
        yield from found.items() if _IS_FULL or "*" not in found else [("*", found["*"])]


def samples(day: Day, method: Method) -> list[bytes]:
    """Return requests of a method that the service accepts, of instances one of each kind; what they change is rolled back."""
    kept: dict[str, bytes] = {}
    for raw in day.samples[method.key]:
        message: Any = method.request.FromString(raw)
        fields = message.DESCRIPTOR.fields_by_name
        if "validate_only" in fields:
            message.validate_only = True
        kind = ""
        if method.name == "CreateInstance":
            kind = message.instance.WhichOneof("spec")
            message.instance.name, message.instance.project_id = "another", day.project
            if kind in kept:  # the later ones read instances that are gone
                continue
        kept[kind] = message.SerializeToString()
    return list(kept.values()) or [b""]  # no day calls what is not ours, such as a method of health


def too_long(found: list[Held]) -> str:
    """Return a report of the requests that held the loop for too long."""
    return "\n\n".join(str(each) for each in found if each.seconds > MOST_SECONDS)


async def test_the_largest_request_of_every_method_holds_the_loop_for_a_short_time(day: Day) -> None:
    found: list[Held] = []
    measured: set[str] = set()
    for key, method in UNARY.items():
        for about, raw in cases(day, method):
            found.append(await measure(day, method, about, raw))
            measured.add(key)
    assert sorted(UNARY.keys() - measured) == []
    assert not too_long(found), too_long(found)


async def test_large_resources_hold_the_loop_for_a_short_time(day: Day) -> None:
    made = await large.make(day, "a")
    await large.add_dependants(day, made.sources[1])
    found = [
        await _measure(day, name, str(given)[:150], given)
        for name, given in (
            *large.requests(made, made.all if _IS_FULL else [made.merged]),
            *large.graph_requests(made.sources[1]),
        )
    ]
    assert not too_long(found), too_long(found)


async def test_costly_definitions_and_configurations_hold_the_loop_for_a_short_time(day: Day) -> None:
    found = [
        await _measure(day, name, about, given)
        async for name, about, given in costly.requests(day, is_full=_IS_FULL)
    ]
    assert not too_long(found), too_long(found)


async def _measure(day: Day, name: str, about: str, given: dict[str, Any]) -> Held:
    method = find(name)
    request: Any = json_format.ParseDict(given, method.request())
    return await measure(day, method, about, request.SerializeToString())
