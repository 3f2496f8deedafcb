"""`optaic run`: runs and their results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any

import typer

from optaic.cli import artifacts, run_steps
from optaic.cli.completion import complete_instances
from optaic.cli.exits import Exit
from optaic.cli.filters import FilterOption, combine
from optaic.cli.naming import find_instance, find_project, is_unattended
from optaic.cli.output import (
    AnyFormat,
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    Wide,
    failure_text,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
    print_next,
    print_table,
)
from optaic.cli.session import (
    FlowOption,
    InstanceArgument,
    ProjectOption,
    RunArgument,
    WatchOption,
    fail,
    run,
    when_it_answers,
)
from optaic.client import AsyncClient, RunHandle, word
from optaic.instance.v1 import instance_pb2
from optaic.rules.monitoring import describe_alert
from optaic.run.v1 import run_pb2

app = typer.Typer(no_args_is_help=True)
for step in (artifacts.artifact, run_steps.cancel, run_steps.retry, run_steps.activities):
    app.command()(step)
_WARNINGS = "warnings"  # the metric with sentences for readers
_WIDE = ("INSTANCE", "MODE", "TRIGGER", "ACTOR", "ATTEMPT")
_LONGEST_FIGURE = 160  # characters


@app.command()
def submit(
    instance: InstanceArgument,
    flow: FlowOption = "",
    mode: Annotated[str, typer.Option(help="incremental (the default) or full.")] = "incremental",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", help="name=value; the value is JSON or plain text. May be repeated."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Run although upstreams are not ready; needs --reason.")
    ] = False,
    allow_deletion: Annotated[
        bool,
        typer.Option(
            "--allow-deletion",
            help="Allow the run to delete more rows than max_deleted_share permits; needs --reason.",
        ),
    ] = False,
    reason: Annotated[
        str, typer.Option(help="The reason for --force or --allow-deletion; recorded with the run.")
    ] = "",
    wait: Annotated[
        bool,
        typer.Option(
            help="Wait for the end of the run; the exit status is 9 if the run fails, 10 if it is cancelled."
        ),
    ] = False,
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Submit a run."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        handle = await client.runs.submit(
            found,
            flow_kind=flow or 0,
            mode=mode,
            parameters=dict(_parameter(each) for each in parameter or ()),
            force=force,
            force_reason=reason if force or not allow_deletion else "",
            allow_deletion=allow_deletion,
            allow_deletion_reason=reason if allow_deletion else "",
        )
        if wait:
            await _follow(handle, output)
        elif is_data(output):
            print_data(handle.run, output)
        else:
            _show([handle.run], output)

    run(command)


@app.command()
def report(
    instance: InstanceArgument,
    version: Annotated[
        str, typer.Option(help="What the other system calls the version.", show_default=False)
    ],
    last_date: Annotated[
        str,
        typer.Option(
            help="The newest date in the data; required if there is a freshness policy, unless it is irregular."
        ),
    ] = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Report a new version of data that another system writes."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        reported = await client.runs.report_external(found, version, last_data_date=last_date)
        if is_data(output):
            print_data(reported, output)
        else:
            _show([reported], output)

    run(command)


@app.command()
def get(
    run_id: RunArgument,
    follow: WatchOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a run: its figures, warnings and alerts, or why it failed; with --watch as it is now, and then as `watch` does."""

    async def command(client: AsyncClient) -> None:
        handle = (
            await when_it_answers(lambda: client.runs.handle(run_id))
            if follow
            else await client.runs.handle(run_id)
        )
        if follow:
            if not is_data(output):
                _show([handle.run], output)
            await _follow(handle, output)
            return
        if is_data(output):
            print_data(handle.run, output)
            return
        _show([handle.run], output)
        if handle.run.external_version:
            print_line(
                f"version {handle.run.external_version} of another system, reported by {handle.run.actor}"
            )
        if handle.run.error.type:
            print_line(failure_text(handle.run.error))
        if handle.run.error.last_lines:
            print_line("the last lines of its log:")
            for line in handle.run.error.last_lines:
                print_line(f"  {line}")
        _show_figures(handle.metrics)
        _show_alerts(handle.run.monitoring)
        if pending := handle.run.telemetry_pending:
            print_line(f"not delivered to {', '.join(pending)} yet; the worker does so when it can")

    run(command)


@app.command()
def watch(
    run_id: RunArgument,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a run until it has ended; the exit status is 9 if it fails, 10 if it is cancelled."""

    async def command(client: AsyncClient) -> None:
        await _follow(await when_it_answers(lambda: client.runs.handle(run_id)), output)

    run(command)


@app.command()
def logs(
    run_id: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print lines as they come, until the run has ended.")
    ] = False,
    level: Annotated[str, typer.Option(help="Only lines of this level and above, for example warning.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Print what a run has printed and logged."""

    async def command(client: AsyncClient) -> None:
        if follow:
            handle = await when_it_answers(lambda: client.runs.handle(run_id))
            lines = handle.watch_logs(min_level=level or 0)
        else:
            lines = client.runs.logs(run_id, min_level=level or 0)
        async with aclosing(lines):
            async for line in lines:
                if is_data(output):
                    print_next(line, output)
                else:
                    print_line(moment(line, "time"), word(line, "level"), line.message)

    run(command)


@app.command()
def traceback(run_id: RunArgument) -> None:
    """Print where a run's code was when it failed."""

    async def command(client: AsyncClient) -> None:
        if not (text := await client.runs.traceback(run_id)):
            fail("the run has no traceback; `optaic run get` shows how it ended")
        print_line(text.rstrip())

    run(command)


@app.command("list")
def list_runs(
    instance: Annotated[
        str,
        typer.Argument(
            help="Only runs of this instance, by id or name; by default runs of all instances.",
            autocompletion=complete_instances,
        ),
    ] = "",
    status: Annotated[
        list[str] | None, typer.Option(help="Only runs with this status, for example failed.")
    ] = None,
    flow: Annotated[str, typer.Option(help="Only runs of this flow kind, for example training.")] = "",
    filters: FilterOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many runs.")] = 20,
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List runs, newest first."""
    several, single = combine(filters, {"status": status}, {"flow": flow})

    async def command(client: AsyncClient) -> None:
        instances: list[instance_pb2.Instance] = []
        if instance:
            instances = [await find_instance(client, instance, project)]
        elif project:
            instances = await client.instances.list(project=await find_project(client, project))
            if not instances:
                _show([], output)
                return
        found = await client.runs.list(
            instances=instances, statuses=several["status"], flow_kind=single["flow"] or 0, limit=limit
        )
        _show(found, output)

    run(command)


async def _follow(handle: RunHandle, output: Format) -> None:
    async for each in handle.watch():
        if is_data(output):
            print_next(each, output)
        else:
            status = word(each, "status")
            # What the worker did last says nothing about a run that has ended.
            message = "" if handle.is_ended else each.progress_message
            print_line(each.run_id, status, f"{each.progress_pct:.0f}%", message)
    if handle.run.status != run_pb2.RUN_STATUS_COMPLETED:
        error = handle.run.error
        was_cancelled = handle.run.status == run_pb2.RUN_STATUS_CANCELLED
        fail(
            f"the run ended {word(handle.run, 'status')}: {error.type} {error.message}".rstrip(": "),
            status=Exit.CANCELLED if was_cancelled else Exit.RUN_FAILED,
        )


def _show(found: list[run_pb2.Run], output: AnyFormat) -> None:
    print_list(
        found,
        ("RUN", "FLOW", "NUMBER", "STATUS", "PROGRESS", "SUBMITTED", "ENDED", "ERROR", *map(Wide, _WIDE)),
        [
            (
                each.run_id,
                word(each, "flow_kind").lower(),
                str(each.run_number),
                word(each, "status"),
                f"{each.progress_pct:.0f}%",
                moment(each, "submit_time"),
                moment(each, "end_time"),
                each.error.type,
                each.instance_id,
                word(each, "mode").lower(),
                word(each, "trigger").lower(),
                each.actor,
                str(each.attempt),
            )
            for each in found
        ],
        output,
    )


def _show_figures(metrics: Mapping[str, Any]) -> None:
    """Write what a run found out, and below it, one a line, what it warns of."""
    figures = {name: value for name, value in metrics.items() if name != _WARNINGS}
    if figures:
        print_table(("FIGURE", "VALUE"), [(name, _figure(figures[name])) for name in sorted(figures)])
    for warning in metrics.get(_WARNINGS) or ():
        print_line(f"warning: {warning}")


def _show_alerts(result: run_pb2.MonitoringResult) -> None:
    """Write one line for each figure of a monitoring that crossed its threshold."""
    for alert in result.alerts:
        print_line(f"alert: {describe_alert(alert.metric, alert.column, alert.value, alert.threshold)}")
    if more := result.alert_count - len(result.alerts):
        print_line(f"alert: {more} more (column_metrics of the run has all)")


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"
    if value is None:
        return "undefined"
    if isinstance(value, list | dict):
        text = json.dumps(value)
        return (
            text if len(text) <= _LONGEST_FIGURE else f"{text[:_LONGEST_FIGURE]}... (-o json has all of it)"
        )
    return str(value)


def _parameter(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"parameter {text!r} must have the form name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
