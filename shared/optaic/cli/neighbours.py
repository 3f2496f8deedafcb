"""`optaic lineage upstreams`, `downstreams` and `order`, and what may be declared of a flow's output."""

from __future__ import annotations

from typing import Annotated

import typer

from optaic.cli.completion import complete_instances
from optaic.cli.naming import find_instance, find_instances, is_unattended
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
from optaic.cli.session import FlowOption, InstanceArgument, ProjectOption, run
from optaic.client import AsyncClient, word
from optaic.lineage.v1 import lineage_pb2

_DepthOption = Annotated[int, typer.Option("--depth", min=0, help="At most this many edges away; 0: all.")]


def upstreams(
    instance: InstanceArgument,
    flow: FlowOption = "",
    depth: _DepthOption = 0,
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List the flows that a flow depends on, nearest first."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        _show(await client.lineage.upstreams(found, flow or None, max_depth=depth), output)

    run(command)


def downstreams(
    instance: InstanceArgument,
    flow: FlowOption = "",
    depth: _DepthOption = 0,
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List the flows that depend on a flow, nearest first."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        _show(await client.lineage.downstreams(found, flow or None, max_depth=depth), output)

    run(command)


def order(
    instances: Annotated[
        list[str],
        typer.Argument(
            help="Ids or names of the instances.", show_default=False, autocompletion=complete_instances
        ),
    ],
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List flows so that each comes after all of its upstreams; those of a level may run at the same time."""

    async def command(client: AsyncClient) -> None:
        found = await find_instances(client, instances, project)
        levels = await client.lineage.order(*found, flow_kind=flow or None)
        names = {each.instance_id: each.name for each in found}
        rows = [
            (names[each.instance_id], word(each, "flow_kind").lower(), str(number), each.instance_id)
            for number, level in enumerate(levels, 1)
            for each in level
        ]
        print_list([list(level) for level in levels], ("NAME", "FLOW", "LEVEL", "ID"), rows, output)

    run(command)


def invalidate(
    instance: InstanceArgument,
    reason: Annotated[str, typer.Option(help="Why the output is not right; recorded.", show_default=False)],
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Declare a flow's output invalid until it runs again; what depends on it becomes stale."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        state = await client.lineage.invalidate(found, reason, flow or None)
        if is_data(output):
            print_data(state, output)
        else:
            print_line(
                f"{state.instance_name}/{word(state.flow, 'flow_kind').lower()}", word(state, "status")
            )

    run(command)


def _show(found: list[lineage_pb2.FlowState], output: ListFormat) -> None:
    print_list(
        found,
        ("NAME", "FLOW", "STATUS", "VERSION", "LAST RUN", "ID"),
        [
            (
                each.instance_name or "hidden",
                word(each.flow, "flow_kind").lower(),
                word(each, "status"),
                str(each.current_version.version or ""),
                moment(each, "last_run_time"),
                each.flow.instance_id,
            )
            for each in found
            if each.instance_name or output is not ListFormat.NAME  # nobody can name a hidden flow
        ],
        output,
    )
