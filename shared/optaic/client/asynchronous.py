"""The asynchronous client; the synchronous client wraps it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from optaic.client.access import Access
from optaic.client.audit import Audit
from optaic.client.certificates import Certificates
from optaic.client.connection import Connection
from optaic.client.data import Data
from optaic.client.data_moves import DataMoves
from optaic.client.definitions import Definitions
from optaic.client.discovery import find_addresses, find_token
from optaic.client.instances import Instances
from optaic.client.lineage import Lineage
from optaic.client.projects import Projects
from optaic.client.refreshes import Refreshes
from optaic.client.runs import Runs
from optaic.client.silence import Notice
from optaic.client.status import Statuses


class AsyncClient:
    """All services of one control plane: `async with AsyncClient.connect() as client: ...`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.projects = Projects(connection)
        self.definitions = Definitions(connection)
        self.instances = Instances(connection)
        self.runs = Runs(connection)
        self.refreshes = Refreshes(connection)
        self.lineage = Lineage(connection)
        self.status = Statuses(connection)
        self.access = Access(connection)
        self.audit = Audit(connection)
        self.data_moves = DataMoves(connection)
        self.data = Data(connection, self.instances, self.lineage, self.runs)
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
        """Return a client; connections are made when they are needed.

        What is not given comes from `OPTAIC_{INSTANCE,RUN,LINEAGE,STATUS}_ADDRESS` and `OPTAIC_TOKEN`, else from the
        state file of a stack that was started here (`$OPTAIC_STATE/stack.json`, or `.state/stack.json` in this
        folder or one above); so do `OPTAIC_TLS_CA`, `OPTAIC_TLS_CERTIFICATE` and `OPTAIC_TLS_KEY`. `timeout` is the deadline of a single call, in seconds. `notice` is called with a sentence
        when a service that is watched has not answered for 5 seconds, and when it answers again.
        """
        addresses = find_addresses(
            {
                "instance": instance_address,
                "run": run_address,
                "lineage": lineage_address,
                "status": status_address,
            }
        )
        return cls(Connection(addresses, find_token(token), timeout, notice, certificates))

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
