"""A system that runs owe something, and that tests take away and bring back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.telemetry.debts import Debt, Delivered, GoneError, UnreachableError


@dataclass
class FakeSystem:
    """A deliverer that keeps what it is given, by run."""

    is_away: bool = False
    is_slow: bool = False
    is_gone: bool = False
    given: dict[str, Debt] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)
    calls: int = 0
    before: Callable[[], None] = lambda: None  # called before each delivery

    async def deliver(self, debt: Debt) -> Delivered:
        """Keep it, unless the system is away."""
        self.calls += 1
        self.before()
        await self._answer()
        if self.is_gone:
            raise GoneError("the experiment was deleted")
        self.given[debt.run_id] = debt
        return Delivered(f"m-{debt.run_id}", str(len(self.given)))

    async def withdraw(self, debt: Debt) -> None:
        """Forget it."""
        await self._answer()
        self.given.pop(debt.run_id, None)
        self.withdrawn.append(debt.run_id)

    async def close(self) -> None:
        """Do nothing."""

    async def _answer(self) -> None:
        if self.is_slow:
            await asyncio.sleep(60)  # longer than any patience under test
        await asyncio.sleep(0)
        if self.is_away:
            raise UnreachableError("it is away")
