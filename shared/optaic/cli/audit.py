"""`optaic audit`: list who changed what, and verify the list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from optaic.audit.v1 import audit_service_pb2
from optaic.audit.v1.audit_pb2 import AuditRecord
from optaic.cli.output import (
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
)
from optaic.cli.session import run
from optaic.cli.values import NO_ZONE, parse_time
from optaic.client import AsyncClient, word
from optaic.client.audit import TrailVerification
from optaic.client.existence import near
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import data_removal_service_pb2, instance_service_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import run_report_service_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2

app = typer.Typer(no_args_is_help=True)
_CONTRACTS = (
    definition_service_pb2,
    instance_service_pb2,
    data_removal_service_pb2,
    run_service_pb2,
    run_report_service_pb2,
    lineage_service_pb2,
    status_service_pb2,
    audit_service_pb2,
)


@app.command("list")
def list_records(
    actor: Annotated[str, typer.Option(help="Only the calls of this actor.")] = "",
    method: Annotated[
        str, typer.Option(help="Only calls of this method, such as RunService/SubmitRun.")
    ] = "",
    resource: Annotated[str, typer.Option(help="Only changes of this resource, such as runs/<id>.")] = "",
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help=f"Only from this time on; {NO_ZONE}."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help=f"Only before this time; {NO_ZONE}."),
    ] = None,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List the audit records of all services, oldest first."""

    async def command(client: AsyncClient) -> None:
        records = await client.audit.records(
            actor=actor, method=_full(method), resource=resource, begin_time=since, end_time=until
        )
        _show(records, output)

    run(command)


@app.command()
def verify(output: OutputOption = Format.TABLE) -> None:
    """Compute every seal again, and name the records that were changed or removed, and those not sealed yet."""

    async def command(client: AsyncClient) -> None:
        trails = await client.audit.verify()
        if is_data(output):
            print_data([_as_json(trail) for trail in trails], output)
        else:
            _show_trails(trails)
        if any(trail.problems for trail in trails):
            raise typer.Exit(1)

    run(command)


def _full(method: str) -> str:
    """Return the full name of a method that is given by its last part or parts, such as `RunService/SubmitRun`.

    Raises:
        ValueError: There is no such method.
    """
    if not method:
        return ""
    known = {name for full in _method_names() for name in (full, full.rpartition("/")[2])}
    for full in _method_names():
        if full == method or full.endswith((f"/{method}", f".{method}")):
            return full
    raise ValueError(f"there is no method named {method!r}{near(method, sorted(known))}")


def _method_names() -> list[str]:
    return [
        f"{service.full_name}/{method.name}"
        for contract in _CONTRACTS
        for service in contract.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def _show(records: Sequence[AuditRecord], output: ListFormat) -> None:
    print_list(
        records,
        ("TIME", "ACTOR", "FROM", "METHOD", "RESOURCE", "REVISION", "DECISION", "CALLS", "REASON"),
        [
            (
                moment(each, "time"),
                each.actor,
                each.peer,
                each.method.removeprefix("optaic."),
                each.resource,
                f"{each.revision_before} -> {each.revision_after}" if each.revision_after else "",
                word(each, "decision"),
                str(each.count),
                each.reason,
            )
            for each in records
        ],
        output,
        name="RESOURCE",
    )


def _show_trails(trails: Sequence[TrailVerification]) -> None:
    for trail in trails:
        state = "CHANGED" if trail.problems else "intact"
        print_line(f"{trail.service}-service", state, f"{trail.sealed_records} sealed records", trail.head)
        for problem in trail.problems:
            print_line("", f"seal {problem.seal_number}", problem.text)
        for record in trail.unsealed:
            print_line("", "not sealed yet", record.audit_id, record.method, record.resource)


def _as_json(trail: TrailVerification) -> dict[str, object]:
    return {
        "service": trail.service,
        "problems": [dataclasses.asdict(problem) for problem in trail.problems],
        "sealed_records": trail.sealed_records,
        "unsealed_audit_ids": [record.audit_id for record in trail.unsealed],
        "head": trail.head,
    }
