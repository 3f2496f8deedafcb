"""`optaic lineage`: what depends on what, and why something is out of date."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from optaic.cli import lineage_graphs, neighbours
from optaic.cli.impact import print_impact
from optaic.cli.naming import find_instance, is_unattended
from optaic.cli.output import (
    Format,
    OutputOption,
    accepted_text,
    failure_text,
    is_data,
    moment,
    print_data,
    print_line,
)
from optaic.cli.session import FlowOption, InstanceArgument, ProjectOption, ReasonOption, run
from optaic.client import AsyncClient, word
from optaic.lineage.v1 import lineage_pb2

app = typer.Typer(no_args_is_help=True)


@app.callback()
def lineage() -> None:
    """Show what depends on what, and why something is stale."""


for other in (
    lineage_graphs.show,
    lineage_graphs.graph,
    lineage_graphs.diff,
    neighbours.upstreams,
    neighbours.downstreams,
    neighbours.order,
    neighbours.invalidate,
):
    app.command()(other)


@app.command()
def explain(
    instance: InstanceArgument,
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Explain why a flow is stale: every cause, with one shortest path through each affected upstream."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        answer = await client.lineage.explain(found, flow or None)
        if is_data(output):
            print_data(answer, output)
            return
        state = answer.flow_state
        kind = word(state.flow, "flow_kind").lower()
        print_line(f"{state.instance_name}/{kind}", word(state, "status"))
        for line in _facts(state):
            print_line(f"  {line}")
        if not answer.explanations:
            print_line("the flow is fresh" if state.is_fresh else "no cause is known")
        for each in answer.explanations:
            cause = each.cause
            is_own = cause.kind == lineage_pb2.CAUSE_KIND_NEVER_SUCCEEDED and cause.origin == state.flow
            if is_own and state.HasField("failure"):
                continue  # the line above says it
            what = cause.message or word(cause, "kind").lower().replace("_", " ")
            if cause.kind == lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED:
                what = f"moved from version {cause.from_version} to {cause.to_version}"
            path = " -> ".join(step.instance_name for step in each.path)
            print_line(f"  {cause.origin_name}: {what}")
            if path:
                print_line(f"    {path}")
        if answer.is_truncated:
            print_line("  there are more causes; explain an upstream of it to see them")

    run(command)


@app.command()
def impact(
    instance: InstanceArgument,
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what would become stale if the output of a flow were no longer right. Nothing is changed."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        answer = await client.lineage.preview_impact(found, flow_kind=flow or None)
        if is_data(output):
            print_data(answer, output)
            return
        print_impact(answer)

    run(command)


@app.command()
def accept(
    instance: InstanceArgument,
    reason: ReasonOption,
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Declare the output of a stale flow right as it is, until a run completes or somebody revokes it."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        _show(await client.lineage.accept_staleness(found, reason, flow or None), output)

    run(command)


@app.command()
def revoke(
    instance: InstanceArgument,
    reason: ReasonOption,
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Take back that the output of a stale flow is right as it is."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        _show(await client.lineage.revoke_accepted_staleness(found, reason, flow or None), output)

    run(command)


def _show(state: lineage_pb2.FlowState, output: Format) -> None:
    """Print the state of a flow after a change."""
    if is_data(output):
        print_data(state, output)
        return
    print_line(
        f"{state.instance_name}/{word(state.flow, 'flow_kind').lower()}",
        word(state, "status"),
        *(cause.message for cause in state.causes),
    )


def _facts(state: lineage_pb2.FlowState) -> Iterator[str]:
    """Yield what is to be known of a flow besides its causes."""
    if state.HasField("failure"):
        yield failure_text(state.failure)
    if state.HasField("accepted_staleness"):
        yield accepted_text(state.accepted_staleness)
    if state.expected_data_date:
        yield _age(state)


def _age(state: lineage_pb2.FlowState) -> str:
    """Return how old the data is, and how old it may be by the freshness policy."""
    text = (
        f"data up to {state.current_version.last_data_date or 'no date'}, expected {state.expected_data_date}"
    )
    return (
        f"{text}, late since {moment(state, 'late_since_time')}"
        if state.HasField("late_since_time")
        else text
    )
