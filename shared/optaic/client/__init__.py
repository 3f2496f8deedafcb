"""The client: what a researcher's program calls; it holds no rule of any service."""

from optaic.client.asynchronous import AsyncClient
from optaic.client.certificates import Certificates
from optaic.client.messages import word
from optaic.client.refreshes import RefreshHandle
from optaic.client.runs import RunHandle
from optaic.client.synchronous import Client

__all__ = ["AsyncClient", "Certificates", "Client", "RefreshHandle", "RunHandle", "word"]
