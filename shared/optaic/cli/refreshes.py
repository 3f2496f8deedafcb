"""`optaic refresh` brings flows up to date; `optaic refreshes` shows, cancels and resumes that."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated, Any

import typer

from optaic.cli.completion import complete_instances
from optaic.cli.exits import Exit
from optaic.cli.filters import FilterOption, combine
from optaic.cli.naming import find_instances, find_project, is_unattended
from optaic.cli.output import (
    AnyFormat,
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
    print_next,
)
from optaic.cli.session import ProjectOption, WatchOption, fail, run, when_it_answers
from optaic.cli.values import parse_labels
from optaic.client import AsyncClient, RefreshHandle, word
from optaic.run.v1 import refresh_pb2

app = typer.Typer(no_args_is_help=True)
RefreshArgument = Annotated[str, typer.Argument(help="Id of the refresh.", show_default=False)]


def refresh(
    instances: Annotated[
        list[str] | None,
        typer.Argument(
            help="Instances, by id or name; or pass --project, --label or --all.",
            show_default=False,
            autocompletion=complete_instances,
        ),
    ] = None,
    upstream: Annotated[bool, typer.Option("--upstream", help="Also everything above them.")] = False,
    downstream: Annotated[bool, typer.Option("--downstream", help="Also everything below them.")] = False,
    all_flows: Annotated[bool, typer.Option("--all", help="Every flow of the tenant.")] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="name=value: the instances with this label. May be repeated."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and run nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run flows that are fresh, too.")] = False,
    stop_on_failure: Annotated[
        bool, typer.Option("--stop-on-failure", help="Start no more runs after a failed one.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=100, help="Most runs at a time.")] = 4,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show how it goes until it has ended.")
    ] = True,
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Bring instances up to date, in order; the exit status is 9 if a flow failed or is blocked."""

    async def command(client: AsyncClient) -> None:
        found = await find_instances(client, instances or (), project, whole=is_unattended())
        selection: dict[str, Any] = {
            "project": "" if found else await find_project(client, project),
            "labels": parse_labels(label or ()),
            "all": all_flows,
            "upstream": upstream,
            "downstream": downstream,
            "mode": "force" if force else "smart",
        }
        if plan:
            flows = await client.refreshes.plan(*found, **selection)
            _show_flows(flows, output)
            return
        handle = await client.refreshes.submit(
            *found,
            **selection,
            on_failure="stop" if stop_on_failure else "continue",
            max_parallel_runs=parallel,
        )
        if wait:
            await _follow(handle, output)
        else:
            _show([handle.refresh], output)

    run(command)


@app.command("list")
def list_refreshes(
    status: Annotated[
        list[str] | None, typer.Option(help="Only refreshes with this status, for example running.")
    ] = None,
    filters: FilterOption = None,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List refreshes, newest first."""
    several, _ = combine(filters, {"status": status})

    async def command(client: AsyncClient) -> None:
        _show(await client.refreshes.list(statuses=several["status"]), output)

    run(command)


@app.command()
def get(
    refresh_id: RefreshArgument, follow: WatchOption = False, output: OutputOption = Format.TABLE
) -> None:
    """Show the flows of a refresh; with --watch as they are now, and then as `watch` does."""

    async def command(client: AsyncClient) -> None:
        if follow:  # a watch begins with all flows
            await _follow(await when_it_answers(lambda: client.refreshes.get(refresh_id)), output)
            return
        _show_flows(await client.refreshes.flows(refresh_id), output)

    run(command)


@app.command()
def watch(refresh_id: RefreshArgument, output: OutputOption = Format.TABLE) -> None:
    """Show a refresh until it has ended; the exit status is 9 if it fails, 10 if it is cancelled."""

    async def command(client: AsyncClient) -> None:
        await _follow(await when_it_answers(lambda: client.refreshes.get(refresh_id)), output)

    run(command)


@app.command()
def cancel(
    refresh_id: RefreshArgument,
    reason: Annotated[str, typer.Option(help="The reason; recorded.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Cancel a refresh and the runs that it has submitted."""

    async def command(client: AsyncClient) -> None:
        _show([(await client.refreshes.cancel(refresh_id, reason)).refresh], output)

    run(command)


@app.command()
def resume(refresh_id: RefreshArgument, output: OutputOption = Format.TABLE) -> None:
    """Continue a failed or cancelled refresh with what it has not brought up to date, and show how it goes."""

    async def command(client: AsyncClient) -> None:
        await _follow(await client.refreshes.resume(refresh_id), output)

    run(command)


async def _follow(handle: RefreshHandle, output: Format) -> None:
    """Show a refresh as a tree that changes in place on a terminal, and as one line for each change elsewhere."""
    flows: dict[tuple[str, int], refresh_pb2.RefreshFlow] = {}
    from optaic.cli.drawing import LiveLines  # noqa: PLC0415 - it is slow to load, and lists need none

    is_live = output is Format.TABLE and sys.stdout.isatty()
    with LiveLines(is_live) as lines:
        async with aclosing(handle.watch()) as changes:
            async for change in changes:
                if is_data(output):
                    print_next(change, output)
                    continue
                for flow in change.flows:
                    flows[flow.flow.instance_id, flow.flow.flow_kind] = flow
                if is_live:
                    lines.show(line_of(flow) for flow in in_order(flows.values()))
                else:
                    for flow in in_order(change.flows):
                        print_line(*line_of(flow))
    if handle.refresh.status != refresh_pb2.REFRESH_STATUS_COMPLETED:
        counts = handle.refresh.counts
        was_cancelled = handle.refresh.status == refresh_pb2.REFRESH_STATUS_CANCELLED
        fail(
            f"the refresh ended {word(handle.refresh, 'status')}: {counts.failed} failed, {counts.blocked} blocked, "
            f"{counts.completed + counts.completed_late} completed, {counts.skipped} skipped "
            f"(optaic refreshes resume {handle.refresh.refresh_id} continues it)",
            status=Exit.CANCELLED if was_cancelled else Exit.RUN_FAILED,
        )


def in_order(flows: Iterable[refresh_pb2.RefreshFlow]) -> list[refresh_pb2.RefreshFlow]:
    """Return the flows of a refresh as its tree shows them."""
    return sorted(flows, key=lambda flow: (flow.level, flow.instance_name, flow.flow.flow_kind))


def line_of(flow: refresh_pb2.RefreshFlow) -> tuple[str, ...]:
    """Return the texts of a flow's line in the tree of its refresh."""
    name = f"{'  ' * flow.level}{_name(flow)}"
    run_text = f"run {flow.run_number}" if flow.run_number else ""
    return (name, _status(flow), *(part for part in (run_text, flow.reason) if part))


def _name(flow: refresh_pb2.RefreshFlow) -> str:
    return "hidden" if flow.hidden else f"{flow.instance_name}/{word(flow.flow, 'flow_kind').lower()}"


def _status(flow: refresh_pb2.RefreshFlow) -> str:
    """Return the status as one word, with why a flow was skipped."""
    status = word(flow, "status")
    if flow.status == refresh_pb2.REFRESH_FLOW_STATUS_SKIPPED:
        return f"{status}: {word(flow, 'skip_reason').lower().replace('_', ' ')}"
    return (
        "COMPLETED, STILL LATE" if flow.status == refresh_pb2.REFRESH_FLOW_STATUS_COMPLETED_LATE else status
    )


def _show_flows(flows: Iterable[refresh_pb2.RefreshFlow], output: Format) -> None:
    found = in_order(flows)
    if is_data(output):
        print_data(found, output)
        return
    if not found:
        print_line("everything is up to date")
    for flow in found:
        print_line(*line_of(flow))


def _show(found: list[refresh_pb2.Refresh], output: AnyFormat) -> None:
    print_list(
        found,
        (
            "REFRESH",
            "STATUS",
            "WAITING",
            "RUNNING",
            "COMPLETED",
            "SKIPPED",
            "FAILED",
            "BLOCKED",
            "SUBMITTED",
            "BY",
        ),
        [
            (
                each.refresh_id,
                word(each, "status"),
                str(each.counts.waiting),
                str(each.counts.running),
                str(each.counts.completed + each.counts.completed_late),
                str(each.counts.skipped),
                str(each.counts.failed),
                str(each.counts.blocked),
                moment(each, "submit_time"),
                each.actor,
            )
            for each in found
        ],
        output,
    )
