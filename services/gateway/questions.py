"""Ask a service in the name of a caller: what the caller may not see, the gateway does not see either."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from gateway import errors
from gateway.backends import Backends
from gateway.caller import Callers
from gateway.request import Request
from optaic.run.v1 import run_pb2, run_service_pb2
from servicekit.auth import AUTHORIZATION_KEY
from servicekit.errors import DomainError
from servicekit.status import DETAILS_KEY, from_rpc_error

_CALL_SECONDS = 15.0
_GET_RUN = "/optaic.run.v1.RunService/GetRun"
_Answer = TypeVar("_Answer", bound=Message)


class ServiceRefusedError(Exception):
    """A service refused; the caller gets its refusal, with the service's domain."""

    def __init__(self, error: DomainError, domain: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.domain = domain


class Questions:
    """Call methods of services with the caller's token."""

    def __init__(self, backends: Backends, callers: Callers) -> None:
        self._backends = backends
        self._callers = callers

    async def get_run(self, request: Request, run_id: str) -> run_pb2.Run:
        """Return a run as the caller sees it; raises as `ask`."""
        wanted = run_service_pb2.GetRunRequest(run_id=run_id)
        return await self.ask(request, "run", _GET_RUN, wanted, run_pb2.Run)

    async def ask(
        self, request: Request, service: str, path: str, wanted: Message, answer: type[_Answer]
    ) -> _Answer:
        """Return the answer of a method.

        Raises:
            ServiceRefusedError: The service refused.
            DomainError: No service answered.
        """
        metadata = ((AUTHORIZATION_KEY, request.authorization),) if request.authorization else ()
        call: Any = self._backends.unary(service, path)
        try:
            found = await call(wanted.SerializeToString(), metadata=metadata, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if not any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ()):
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    self._callers.nobody_asked()
                raise errors.without_details(service, error.code().name) from None
            self._callers.judge(error.code())
            raise ServiceRefusedError(from_rpc_error(error), f"{service}.optaic") from None
        self._callers.judge(grpc.StatusCode.OK)
        return answer.FromString(found)
