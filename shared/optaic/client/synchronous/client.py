"""The same client for programs without an event loop: one loop in a thread runs the asynchronous one; it has no logic."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from optaic.client.asynchronous import AsyncClient
from optaic.client.certificates import Certificates
from optaic.client.silence import Notice
from optaic.client.synchronous.access import Access
from optaic.client.synchronous.audit import Audit
from optaic.client.synchronous.data import Data
from optaic.client.synchronous.data_moves import DataMoves
from optaic.client.synchronous.definitions import Definitions
from optaic.client.synchronous.instances import Instances
from optaic.client.synchronous.lineage import Lineage
from optaic.client.synchronous.loop import Loop
from optaic.client.synchronous.projects import Projects
from optaic.client.synchronous.refreshes import Refreshes
from optaic.client.synchronous.runs import Runs
from optaic.client.synchronous.status import Statuses


class Client:
    """All services of one control plane: `with Client.connect() as client: ...`; see AsyncClient."""

    def __init__(self, loop: Loop, client: AsyncClient) -> None:
        self._loop = loop
        self._client = client
        self.projects = Projects(loop, client.projects)
        self.definitions = Definitions(loop, client.definitions)
        self.instances = Instances(loop, client.instances)
        self.runs = Runs(loop, client.runs)
        self.refreshes = Refreshes(loop, client.refreshes)
        self.lineage = Lineage(loop, client.lineage)
        self.status = Statuses(loop, client.status)
        self.access = Access(loop, client.access)
        self.audit = Audit(loop, client.audit)
        self.data_moves = DataMoves(loop, client.data_moves)
        self.data = Data(loop, client.data)
        self.refresh = self.refreshes.submit

    @classmethod
    def connect(
        cls,
        *,
        instance_address: str | None = None,
        run_address: str | None = None,
        lineage_address: str | None = None,
        status_address: str | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        notice: Notice | None = None,
        certificates: Certificates | None = None,
    ) -> Self:
        """Return a client; connections are made when they are needed. Arguments as of `AsyncClient.connect`."""
        loop = Loop()

        async def make() -> AsyncClient:
            return AsyncClient.connect(
                instance_address=instance_address,
                run_address=run_address,
                lineage_address=lineage_address,
                status_address=status_address,
                token=token,
                timeout=timeout,
                notice=notice,
                certificates=certificates,
            )

        try:
            return cls(loop, loop.run(make()))
        except BaseException:
            loop.stop()
            raise

    def close(self) -> None:
        """Close all connections, and end the thread."""
        self._loop.run(self._client.close())
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
