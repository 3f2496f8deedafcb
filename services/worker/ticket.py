"""The ticket that Prefect gives to an executor, and the request for a run that follows from it; makes no call."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_report_service_pb2
from servicekit.context import is_tenant_id
from servicekit.enums import enum_number, enum_word
from servicekit.ids import is_id
from worker.config import Settings

_FLOW_KINDS = [enum_word(flow_pb2.FlowKind, number) for number in flow_pb2.FlowKind.values() if number]
_LONGEST_SHOWN = 100  # characters
# Of each parameter: whether a text is one, and what it has to be.
_PARAMETERS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "tenant_id": (is_tenant_id, "the id of a tenant"),
    "instance_id": (is_id, "the id of an instance"),
    "flow_kind": (_FLOW_KINDS.__contains__, f"one of {', '.join(_FLOW_KINDS)}"),
    "run_id": (lambda text: not text or is_id(text), "the id of a run, or left out"),
}
_OPTIONAL = {"run_id": ""}
_WHAT_TO_DO = "Keep the parameters that the deployment gives, or start runs with `optaic run submit`."


class TicketInvalidError(ValueError):
    """No run can be asked for with what the flow run was given; the message says why and what to do."""


@dataclass(frozen=True)
class Ticket:
    """The values that the orchestrator hands to an executor."""

    tenant_id: str
    instance_id: str
    flow_kind: str  # lower case, without prefix
    run_id: str  # empty: the orchestrator's schedule started it
    orchestrator_run_id: str
    scheduled_time: dt.datetime  # the nominal time
    executor: str
    start_secret: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def read(
        cls, parameters: Mapping[str, Any], orchestrator_run_id: str, scheduled_time: dt.datetime
    ) -> Self:
        """Read the parameters of a flow run; a user can start one by hand with any parameters.

        Raises:
            TicketInvalidError: naming all that is wrong with the parameters.
        """
        given = {**_OPTIONAL, **parameters}
        problems = [
            f"{name!r} is not a parameter of this flow" for name in sorted(given.keys() - _PARAMETERS)
        ]
        for name, (is_right, meaning) in _PARAMETERS.items():
            if name not in given:
                problems.append(f"{name} is missing; it must be {meaning}")
            elif not (isinstance(value := given[name], str) and is_right(value)):
                problems.append(f"{name} is {_show(value)}, but must be {meaning}")
        if problems:
            raise TicketInvalidError(f"The run was not started: {'; '.join(problems)}. {_WHAT_TO_DO}")
        return cls(
            **{name: given[name] for name in _PARAMETERS},
            orchestrator_run_id=orchestrator_run_id,
            scheduled_time=scheduled_time,
            executor=f"{socket.gethostname()}:{os.getpid()}",
        )

    def make_request(self) -> run_report_service_pb2.StartRunRequest:
        """Start the run, or, asked again for the same flow run, learn how it was started."""
        request = run_report_service_pb2.StartRunRequest(
            orchestrator_run_id=self.orchestrator_run_id,
            executor=self.executor,
            start_secret=self.start_secret,
        )
        if self.run_id:
            request.run_id = self.run_id
        else:
            request.scheduled.flow.instance_id = self.instance_id
            request.scheduled.flow.flow_kind = enum_number(flow_pb2.FlowKind, self.flow_kind)
            request.scheduled.scheduled_time.FromDatetime(self.scheduled_time)
        return request


def check_tenant(ticket: Ticket, settings: Settings) -> None:
    """Refuse a flow run of a tenant that this worker does not serve.

    Raises:
        TicketInvalidError: The worker serves another tenant.
    """
    if ticket.tenant_id != settings.tenant_id:
        raise TicketInvalidError(
            f"The run was not started: this worker serves the tenant {settings.tenant_id}, not {ticket.tenant_id}. "
            f"Give each tenant a worker and a work pool of its own."
        )


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
