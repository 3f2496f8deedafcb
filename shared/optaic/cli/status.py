"""`optaic status`: the statuses of instances, live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Annotated

import typer

from optaic.cli import realtime
from optaic.cli.completion import complete_instances
from optaic.cli.filters import FilterOption
from optaic.cli.naming import find_instance, find_instances, find_past_instance, find_project, paths_of
from optaic.cli.output import (
    AnyFormat,
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    accepted_text,
    failure_text,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
    print_next,
)
from optaic.cli.session import InstanceArgument, ProjectOption, WatchOption, run, when_it_answers
from optaic.cli.status_filters import (
    Asked,
    AsOfOption,
    CauseOption,
    ChangedWithinOption,
    FlowOption,
    KindOption,
    LabelOption,
    NameOption,
    NamePrefixOption,
    OwnerOption,
    UnchangedForOption,
    read_times,
)
from optaic.cli.values import NO_ZONE, parse_time
from optaic.client import AsyncClient, word
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.status.v1 import status_pb2, status_service_pb2

app = typer.Typer(no_args_is_help=True)
app.command()(realtime.token)
StartOption = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_time,
        metavar="TIME",
        help=f"Begin at this time; {NO_ZONE}. By default with all that is kept.",
    ),
]
EndOption = Annotated[
    datetime | None,
    typer.Option(parser=parse_time, metavar="TIME", help=f"End at this time; {NO_ZONE}. By default now."),
]
InstancesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Only these instances, by id or name; by default all.",
        show_default=False,
        autocompletion=complete_instances,
    ),
]


@app.command("list")
def list_statuses(
    project: ProjectOption = "",
    status: Annotated[list[str] | None, typer.Option(help="Only this status, for example stale.")] = None,
    kind: KindOption = None,
    cause: CauseOption = None,
    flow: FlowOption = None,
    label: LabelOption = None,
    owner: OwnerOption = "",
    name: NameOption = "",
    name_prefix: NamePrefixOption = "",
    unchanged_for: UnchangedForOption = "",
    changed_within: ChangedWithinOption = "",
    as_of: AsOfOption = "",
    filters: FilterOption = None,
    follow: WatchOption = False,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """Show the status of every instance to which all filters apply, as it is or as it was; with --watch of all of a project, or of all."""
    words = {"status": status, "kind": kind, "cause": cause, "flow": flow, "label": label}
    asked = Asked.of(filters, words, {"owner": owner, "name": name, "name_prefix": name_prefix})

    is_narrowed = asked.is_narrowed() or bool(unchanged_for or changed_within or as_of)
    if follow and (is_narrowed or output in {ListFormat.NAME, ListFormat.CSV}):
        raise typer.BadParameter(
            "needs a list of all instances, or of a --project, as table, wide, json or yaml; leave out the other options",
            param_hint="--watch",
        )

    async def command(client: AsyncClient) -> None:
        if follow:
            project_id = await when_it_answers(lambda: find_project(client, project))
            await _follow(client, (), project_id, lambda found: _show_list(found, {}, output), output)
            return
        found = await client.status.list(
            project=await find_project(client, project),
            **asked.selection(),
            **await read_times(client, as_of, unchanged_for, changed_within),
        )
        _show_list(found, await paths_of(client, output), output)

    run(command)


def _show_list(
    found: Sequence[status_pb2.InstanceStatus], paths: Mapping[str, str], output: ListFormat
) -> None:
    rows = [
        (
            f"{paths.get(each.project_id, '')}{each.instance_name}",
            word(each, "status"),
            moment(each, "status_since_time"),
            _reason(each),
            each.instance_id,
        )
        for each in found
    ]
    print_list(found, ("NAME", "STATUS", "SINCE", "WHY", "ID"), rows, output)


@app.command()
def get(
    instance: InstanceArgument,
    project: ProjectOption = "",
    follow: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the status of an instance and of each of its flows, with why."""

    async def command(client: AsyncClient) -> None:
        if follow:
            wanted = await when_it_answers(lambda: find_instance(client, instance, project))
            await _follow(client, [wanted], "", _show, output)
            return
        found = await client.status.get(await find_instance(client, instance, project))
        if is_data(output):
            print_data(found, output)
        else:
            _show([found])

    run(command)


def _show(found: Iterable[status_pb2.InstanceStatus]) -> None:
    for each in found:
        print_line(each.instance_name, word(each, "status"), f"since {moment(each, 'status_since_time')}")
        for flow in each.flows:
            print_line(f"  {word(flow, 'flow_kind').lower()}", word(flow, "status"))
            for reason in (*_reasons(flow), *_waits(flow)):
                print_line(f"    {reason}")


@app.command()
def count(
    project: ProjectOption = "",
    kind: KindOption = None,
    cause: CauseOption = None,
    flow: FlowOption = None,
    label: LabelOption = None,
    owner: OwnerOption = "",
    name: NameOption = "",
    name_prefix: NamePrefixOption = "",
    unchanged_for: UnchangedForOption = "",
    changed_within: ChangedWithinOption = "",
    as_of: AsOfOption = "",
    filters: FilterOption = None,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """Show how many instances have each status, of those to which all filters apply, as it is or as it was."""
    words = {"kind": kind, "cause": cause, "flow": flow, "label": label}
    asked = Asked.of(filters, words, {"owner": owner, "name": name, "name_prefix": name_prefix})

    async def command(client: AsyncClient) -> None:
        found = await client.status.count(
            project=await find_project(client, project),
            **asked.selection(),
            **await read_times(client, as_of, unchanged_for, changed_within),
        )
        print_list(
            found, ("STATUS", "INSTANCES"), [(each, str(number)) for each, number in found.items()], output
        )

    run(command)


@app.command()
def history(
    instance: InstanceArgument,
    project: ProjectOption = "",
    start: StartOption = None,
    end: EndOption = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also show new versions that changed no status.")
    ] = False,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """Show which statuses an instance had, newest first, and for how long."""

    async def command(client: AsyncClient) -> None:
        found = await client.status.history(
            await find_past_instance(client, instance, project),
            start=start,
            end=end,
            only_status_changes=not versions,
        )
        rows = [
            (
                word(each, "to_status") if each.to_status else "DELETED",
                moment(each, "create_time"),
                _length(each),
                each.caused_by_run_id,
            )
            for each in found
        ]
        print_list(found, ("STATUS", "SINCE", "FOR", "RUN"), rows, output)

    run(command)


@app.command()
def availability(
    instances: InstancesArgument = None,
    project: ProjectOption = "",
    start: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_time,
            metavar="TIME",
            help=f"Of one window from this time on; {NO_ZONE}. By default three windows.",
        ),
    ] = None,
    end: EndOption = None,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """Show the share of time in which instances were READY: of the last 24 hours, 7 days and 30 days."""
    if end is not None and start is None:
        raise typer.BadParameter("--end needs --start")

    async def command(client: AsyncClient) -> None:
        found = await client.status.availability(
            await find_instances(client, instances or (), project),
            project=await find_project(client, project),
            windows=[] if start is None else [(start, end)],
        )
        columns = ("24 HOURS", "7 DAYS", "30 DAYS") if start is None else ("READY",)
        rows = [
            (each.instance_name, *(_share(window) for window in each.windows), each.instance_id)
            for each in found
        ]
        print_list(found, ("NAME", *columns, "ID"), rows, output)

    run(command)


def _length(entry: status_pb2.StatusTransition) -> str:
    if not entry.HasField("duration"):
        return ""
    return str(timedelta(seconds=entry.duration.seconds))


def _share(window: status_pb2.WindowAvailability) -> str:
    return f"{window.ready_share:.2%}" if window.HasField("ready_share") else "-"


@app.command()
def watch(
    instances: InstancesArgument = None,
    project: ProjectOption = "",
    from_revision: Annotated[
        int | None,
        typer.Option(min=0, help="Resume after this revision; by default begin with the current statuses."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="End after this many lines; 0 means never.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print a line for each change, live, until interrupted."""

    async def command(client: AsyncClient) -> None:
        async def find() -> tuple[str, list[instance_pb2.Instance]]:
            found = await find_instances(client, instances or (), project)
            return await find_project(client, project), found

        project_id, wanted = await when_it_answers(find)
        count = 0
        changes = client.status.watch(wanted, project=project_id, from_revision=from_revision)
        async with aclosing(changes):
            async for change in changes:
                if is_data(output):
                    print_next(change, output)
                elif change.HasField("instance_status"):
                    print_line(*_line(change))
                else:
                    continue
                count += 1
                if limit and count >= limit:
                    return

    run(command)


async def _follow(
    client: AsyncClient,
    wanted: Sequence[instance_pb2.Instance],
    project_id: str,
    show: Callable[[list[status_pb2.InstanceStatus]], object],
    output: AnyFormat,
) -> None:
    """Show the statuses as they are, and then a line for each change, until interrupted; for programs each is a message."""
    begun: dict[str, status_pb2.InstanceStatus] | None = {}
    async with aclosing(client.status.watch(wanted, project=project_id)) as changes:
        async for change in changes:
            if is_data(output):
                print_next(change, output)
            elif begun is not None and change.is_initial:
                begun[change.instance_status.instance_id] = change.instance_status
            elif begun is not None:  # those of the beginning are complete
                show(sorted(begun.values(), key=lambda status: status.instance_name))
                begun = None
            elif change.HasField("instance_status"):
                print_line(*_line(change))


def _line(change: status_service_pb2.WatchInstanceStatusesResponse) -> tuple[str, ...]:
    status = change.instance_status
    state = "DELETED" if change.is_deleted else word(status, "status")
    return (
        moment(status, "update_time"),
        f"{status.revision:>8}",
        status.instance_name,
        state,
        _reason(status),
    )


def _reason(status: status_pb2.InstanceStatus) -> str:
    reasons = [reason for flow in status.flows for reason in (*_reasons(flow), *_waits(flow))]
    return "; ".join(dict.fromkeys(reasons))


def _reasons(flow: status_pb2.FlowStatus) -> list[str]:
    """Return who has accepted a flow's staleness, why its last run failed, and the causes that do not say the same."""
    accepted = [accepted_text(flow.accepted_staleness)] if flow.HasField("accepted_staleness") else []
    causes = [cause for cause in flow.causes if cause.message]
    if not flow.HasField("failure"):
        return [*accepted, *(cause.message for cause in causes)]
    others = [cause.message for cause in causes if cause.kind != lineage_pb2.CAUSE_KIND_NEVER_SUCCEEDED]
    return [*accepted, failure_text(flow.failure), *others]


def _waits(flow: status_pb2.FlowStatus) -> list[str]:
    """Return what a scheduled time of a flow waits for: the first upstream flow, and how many others."""
    if not flow.HasField("waiting_for"):
        return []
    wait = flow.waiting_for
    shown = next((each for each in wait.flows if each.instance_name), None)
    what = f"{shown.instance_name}: {shown.reason}" if shown is not None else "flows of other projects"
    more = f", and {wait.flow_count - 1} more" if wait.flow_count > 1 else ""
    return [f"{moment(wait, 'scheduled_time')} waits for {what}{more}"]
