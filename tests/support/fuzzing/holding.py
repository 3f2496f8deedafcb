"""Send a request several times, and find how long it holds the event loop of the service at best."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from support.fuzzing.methods import Method
from support.fuzzing.world import REPORTS, World, identity_of

MOST_SECONDS = 0.05
_TRIES = 6  # a busy machine does not delay all of them
_PATIENCE = 15  # seconds for an answer; a late one tells as much
_OF_SERVICES = {
    "BatchCheckUpstreamFreshness",
    "CheckUpstreamFreshness",
    "PlanFlows",
}  # with an instance or events, only services


@dataclass(frozen=True)
class Held:
    """How long a request held the loop, and which one it was."""

    method: str
    about: str
    bytes: int
    seconds: float
    answer: str
    holder: str

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.0f} ms: {self.method} {self.about}, {self.bytes} bytes: {self.answer}\n{self.holder}"


async def measure(world: World, method: Method, about: str, raw: bytes) -> Held:
    """Send a request until it holds the loop for a short time, or often enough; return the best."""
    process = world.services.processes[method.process]
    call = world.channels[method.process].unary_unary(method.path)
    metadata = identity_of(_role_of(method.name), world.tenant)
    best: Held | None = None
    for _ in range(_TRIES):
        await process.facts()
        answer = "OK"
        try:
            await call(raw, metadata=metadata, timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            answer = f"{error.code().name} {error.details()}"[:200]
        facts = await process.facts()
        if best is None or facts.held < best.seconds:
            best = Held(method.name, about, len(raw), facts.held, answer, facts.holder)
        if best.seconds <= MOST_SECONDS:
            break
    assert best is not None
    return best


def _role_of(name: str) -> str:
    if name in REPORTS:
        return "executor"
    return "service" if name in _OF_SERVICES else "admin"
