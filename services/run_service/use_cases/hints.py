"""Tell workers that a flow run was made for a run of their tenant, so that they look for it now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator


class DispatchHints:
    """The streams of this process; many hints that nobody has taken yet are one."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = {}

    def tell(self, tenant_id: str) -> None:
        """Wake all who listen for a tenant."""
        for hint in self._listeners.get(tenant_id, ()):
            hint.set()

    async def listen(self, tenant_id: str) -> AsyncGenerator[None, None]:
        """Yield at once, because flow runs may have been made before, and then after each hint."""
        hint = asyncio.Event()
        hint.set()
        self._listeners.setdefault(tenant_id, set()).add(hint)
        try:
            while True:
                await hint.wait()
                hint.clear()
                yield
        finally:
            self._listeners[tenant_id].discard(hint)
            if not self._listeners[tenant_id]:
                del self._listeners[tenant_id]
