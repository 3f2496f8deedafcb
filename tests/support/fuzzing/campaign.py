"""Send hostile requests to the services, and find the answers that no request may get."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from optaic.instance.v1 import instance_pb2
from servicekit.status import from_rpc_error
from support.fuzzing import values
from support.fuzzing.methods import METHODS, Method
from support.fuzzing.mutation import Mutator, mask_paths, spoil
from support.fuzzing.processes import is_fault
from support.fuzzing.world import REPORTS, World, identity_of

_AT_ONCE = 16
_PATIENCE = 60.0
_LISTENING = 0.3  # seconds of a stream
_FAULTS = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
_TOO_LATE = "Internal error from Core"  # what a client says whose request could not be written any more
_MEANT = {"READ_TOKENS_PENDING", "RUN_NOT_DISPATCHED", "DATA_MOVING"}
_MOST_FAILURES = 25
_MOST_METADATA = 16_000  # bytes; somewhat more is refused before the service sees it
_MOST_RECEIVED = 5 << 20
_MOST_TRIES = 150  # to make a failing request smaller
_GUARDED = {
    "PublishDefinition",
    "DeprecateDefinitionVersion",
    "RetireDefinitionVersion",
    "ActivateDefinitionVersion",
}
_ROLES = ("admin",) * 20 + ("maintainer", "researcher", "viewer", "executor", "service", "nobody", "forged")
_MASKS = [
    *mask_paths(instance_pb2.Instance.DESCRIPTOR),
    *mask_paths(instance_pb2.Project.DESCRIPTOR),
    "*",
    "",
]
_OF_SERVICES = {"BatchCheckUpstreamFreshness", "PlanFlows"}
_FORGED = ("Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "Bearer " + "x" * 20_000, "bearer  x")
_KEYS = (
    "x-request-id",
    "traceparent",
    "optaic-read-tokens",
    "optaic-tenant",
    "optaic-actor",
    "x-odd",
    "te-bin",
)
_HEADERS = [text for text in values.TEXTS if text.isascii() and text.isprintable() and len(text) < 4_000]
_Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Attack:
    """One request; `number` and the campaign's seed make it again."""

    number: int
    method: Method
    raw: bytes
    metadata: _Metadata
    timeout: float
    is_large: bool = False  # what it sends beside the message is more than gRPC takes

    def text(self) -> str:
        """Return the request for a reader who wants to send it again."""
        try:
            shown = text_format.MessageToString(self.method.request.FromString(self.raw), as_one_line=True)
        except DecodeError:
            shown = "no message"
        metadata = [
            (key, value if len(value) < 300 else f"{len(value)} long") for key, value in self.metadata
        ]
        raw = self.raw.hex() if len(self.raw) < 3_000 else f"{len(self.raw)} bytes"
        return f"#{self.number} {self.method.key} {metadata} timeout={self.timeout}\n{shown[:3000]}\n{raw}"


@dataclass(frozen=True)
class Failure:
    """An attack whose answer shows a fault."""

    attack: Attack
    code: str
    text: str
    log: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}\n{self.attack.text()}\n{self.log}"


@dataclass
class Campaign:
    """Attacks that a seed determines; failures of the same kind are kept once."""

    world: World
    seed: str
    failures: dict[str, Failure] = field(default_factory=dict)
    codes: Counter[str] = field(default_factory=Counter)
    count: int = 0

    @property
    def is_hopeless(self) -> bool:
        """Return whether so much fails that more attacks would tell nothing."""
        return len(self.failures) >= _MOST_FAILURES

    async def run(self, count: int, seconds: float = float("inf")) -> None:
        """Send so many attacks, or as many as fit into the time."""
        end, ahead = time.monotonic() + seconds, iter(range(self.count, self.count + count))

        async def attack() -> None:
            for number in ahead:
                if time.monotonic() > end or self.is_hopeless:
                    return
                self.count += 1
                made = make(self.world, self.seed, number)
                if made is not None:
                    await self._try(made)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(attack())

    async def _try(self, attack: Attack) -> None:
        code, text, request_id = await send(self.world, attack)
        self.codes[code] += 1
        if not text and code not in _FAULTS:
            return
        log = self._log_of(attack, request_id)
        kind = f"{attack.method.name} {code} {log[-300:] or text[:200]}"
        if kind not in self.failures:
            self.failures[kind] = Failure(attack, code, text, log)

    def _log_of(self, attack: Attack, request_id: str) -> str:
        process = self.world.services.processes[attack.method.process]
        for line in reversed(process.log_lines()):
            if request_id and request_id in line and is_fault(line):
                return str(json.loads(line).get("exception", line))[-3000:]
        return ""

    async def smallest(self, failure: Failure) -> Failure:
        """Return the failure with the smallest request found that still fails in the same way."""
        best = failure.attack
        try:
            message = best.method.request.FromString(best.raw)
        except DecodeError:
            return failure
        tries = 0
        again = True
        while again:
            again = False
            for smaller in list(_smaller(message)):
                tries += 1
                if tries > _MOST_TRIES:
                    return replace(failure, attack=best)
                attack = replace(best, raw=smaller.SerializeToString())
                code, _, _ = await send(self.world, attack)
                if code == failure.code:
                    best, message, again = attack, smaller, True
                    break
        return replace(failure, attack=best)


def _smaller(message: Message) -> Any:
    """Yield copies of a message that lack one of its fields, or of the fields within."""
    for path in _paths(message):
        copy = type(message)()
        copy.CopyFrom(message)
        place: Any = copy
        for name, index in path[:-1]:
            place = getattr(place, name)
            if index is not None:
                place = place[index]
        name, index = path[-1]
        if index is None:
            place.ClearField(name)
        else:
            del getattr(place, name)[index]
        yield copy


def _paths(message: Message) -> Any:
    for field_, value in message.ListFields():
        yield ((field_.name, None),)
        if field_.message_type is None:
            continue
        if field_.message_type.GetOptions().map_entry:
            for key in list(value)[:20]:
                yield ((field_.name, key),)
                if isinstance(value[key], Message):
                    yield from (((field_.name, key), *rest) for rest in _paths(value[key]))
        elif field_.is_repeated:
            for index, item in enumerate(value[:20]):
                yield ((field_.name, index),)
                yield from (((field_.name, index), *rest) for rest in _paths(item))
        else:
            yield from (((field_.name, None), *rest) for rest in _paths(value))


def make(world: World, seed: str, number: int) -> Attack | None:
    """Return the attack of a number; None where it would only take away what others need."""
    choices = random.Random(f"{seed}:{number}")
    method = choices.choice(list(METHODS.values()))
    if not method.is_ours and choices.random() < 0.8:
        method = choices.choice([each for each in METHODS.values() if each.is_ours])
    mutator = Mutator(choices, world.texts, _MASKS)
    samples = world.samples.get(method.key)
    message = method.request()
    way = choices.randrange(100)
    if samples and way < 88:
        message.ParseFromString(choices.choice(list(samples)))
        if way < 85:
            mutator.mutate(message)
    else:
        mutator.fill(message)
    raw = message.SerializeToString()
    if choices.random() < 0.08:
        raw = spoil(choices, raw)
    elif choices.random() < 0.02:
        raw = choices.choice(list(choices.choice(list(world.samples.values()))))
    if method.name in _GUARDED and any(each in raw for each in world.protected):
        return None
    metadata, is_large = _metadata(choices, method)
    timeout = choices.choice((_PATIENCE,) * 60 + (0.0, 1e-6, 0.001, 0.05, 1e9))
    return Attack(number, method, raw, metadata, timeout, is_large or len(raw) > _MOST_RECEIVED)


def _metadata(choices: random.Random, method: Method) -> tuple[_Metadata, bool]:
    """Return the metadata, and whether it is more than the server takes."""
    role = choices.choice(_ROLES)
    if choices.random() < 0.85:
        role = "executor" if method.name in REPORTS else "service" if method.name in _OF_SERVICES else role
    metadata: list[tuple[str, str | bytes]] = []
    if role == "forged":
        metadata.append(("authorization", choices.choice(_FORGED)))
    elif role != "nobody":
        metadata += identity_of(role, "default" if choices.random() < 0.9 else "other")
    if choices.random() < 0.3:
        keys = choices.choices(_KEYS, k=choices.choice((1, 1, 2, 5)))
        metadata += [
            (key, _value_of(choices, key)) for key in keys if key != "optaic-tenant" or role == "service"
        ]
    if choices.random() < 0.01:
        metadata.append(("x-odd", "x" * 40_000))
    return tuple(metadata), sum(len(value) for _, value in metadata) > _MOST_METADATA


def _value_of(choices: random.Random, key: str) -> str | bytes:
    if key.endswith("-bin"):
        return bytes(range(256)) * choices.choice((1, 10))
    if key == "traceparent" and choices.random() < 0.5:
        return "00-" + "f" * 32 + "-" + "f" * 16 + "-01"
    if key == "optaic-read-tokens":
        return _read_tokens(choices, _HEADERS)
    return choices.choice(_HEADERS)


def _read_tokens(choices: random.Random, texts: Sequence[str]) -> str:
    package = choices.choice(("instance", "run", "lineage", "", "nothing", "instance/instance"))
    some = "01900000-0000-7000-8000-0000000000ab" if choices.random() < 0.1 else choices.choice(texts)
    return ",".join([f"{package}/{some}"] * choices.choice((1, 1, 2, 65)))


async def send(world: World, attack: Attack) -> tuple[str, str, str]:
    """Return the code of the answer, why it is no answer that a request may get (or nothing), and the request id."""
    channel = world.channels[attack.method.process]
    path, options = attack.method.path, {"metadata": attack.metadata, "timeout": attack.timeout}
    try:
        async with asyncio.timeout(_PATIENCE + 10):
            if attack.method.takes_stream:
                await _listen(channel.stream_stream(path)(iter([attack.raw]), **options))
            elif attack.method.is_stream:
                await _listen(channel.unary_stream(path)(attack.raw, **options))
            else:
                call: Any = channel.unary_unary(path)(attack.raw, **options)
                await call
    except TimeoutError:
        return "HANGS", "no answer came", ""
    except grpc.aio.AioRpcError as error:
        return _judge(attack, error)
    return "OK", "", ""


async def _listen(stream: Any) -> None:
    """Read a stream for a moment, then leave it."""
    try:
        async with asyncio.timeout(_LISTENING):
            while await stream.read() is not grpc.aio.EOF:
                pass
    except TimeoutError:
        pass
    finally:
        stream.cancel()


def _judge(attack: Attack, error: grpc.aio.AioRpcError) -> tuple[str, str, str]:
    meaning = from_rpc_error(error)
    metadata = dict(error.trailing_metadata() or ())
    request_id = str(metadata.get("x-request-id", ""))
    code, is_typed = error.code().name, "grpc-status-details-bin" in metadata
    if attack.timeout < 1 and (code == "DEADLINE_EXCEEDED" or attack.method.takes_stream):
        return "too short", "", request_id
    if attack.method.takes_stream and error.details() == _TOO_LATE:
        return "refused while it was sent", "", request_id
    if meaning.reason in _MEANT or (attack.is_large and code == "RESOURCE_EXHAUSTED"):
        return code if code == "RESOURCE_EXHAUSTED" else "must wait", "", request_id
    if code in _FAULTS:
        return code, error.details() or code, request_id
    if attack.method.is_ours and not is_typed:
        return code, f"the refusal names no reason: {error.details()}", request_id
    return code, "", request_id
