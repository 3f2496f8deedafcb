"""`optaic lineage show`, `graph` and `diff`: the graph as it is, and as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from optaic.cli.naming import find_past_instance
from optaic.cli.output import Format, OutputOption, is_data, moment, print_data, print_line
from optaic.cli.session import FlowOption, InstanceArgument, ProjectOption, run
from optaic.cli.values import MOMENT, parse_moment
from optaic.client import AsyncClient, word
from optaic.common.v1 import flow_pb2
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api

_HIDDEN = "a flow in a project that you may not read"
# Statuses that say whether a flow is fresh.
_SAY_FRESHNESS = {flow_pb2.STATUS_READY, flow_pb2.STATUS_STALE}
AsOfOption = Annotated[str, typer.Option("--as-of", help=f"Show it as it was: {MOMENT}.")]
_Depth = Annotated[int, typer.Option(min=0, help="How many edges away at most; 0 means no limit.")]


def show(
    instance: InstanceArgument,
    flow: FlowOption = "",
    as_of: AsOfOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the state of a flow, as it is or as it was."""

    async def command(client: AsyncClient) -> None:
        when = await parse_moment(client, as_of)
        state = await client.lineage.state(
            await find_past_instance(client, instance, project), flow or None, as_of=when
        )
        if is_data(output):
            print_data(state, output)
            return
        if state.as_of_revision:
            print_line(f"revision {state.as_of_revision}", moment(state, "as_of_time"))
        print_line(*_line(state))
        for cause in state.causes:
            print_line(f"  {cause.message}")

    run(command)


def graph(
    instance: InstanceArgument,
    flow: FlowOption = "",
    as_of: AsOfOption = "",
    upstream_depth: _Depth = 0,
    downstream_depth: _Depth = 0,
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the flows around a flow with what each reads, as they are or as they were."""

    async def command(client: AsyncClient) -> None:
        when = await parse_moment(client, as_of)
        answer = await client.lineage.graph(
            await find_past_instance(client, instance, project),
            flow or None,
            upstream_depth=upstream_depth,
            downstream_depth=downstream_depth,
            as_of=when,
        )
        if is_data(output):
            print_data(answer, output)
            return
        if answer.as_of_revision:
            print_line(f"revision {answer.as_of_revision}", moment(answer, "as_of_time"))
        names = {_key(state.flow): _line(state)[0] for state in answer.flows}
        inputs: dict[tuple[str, int], list[lineage_pb2.Edge]] = {}
        for edge in answer.edges:
            inputs.setdefault(_key(edge.downstream), []).append(edge)
        for state in answer.flows:
            print_line(*_line(state))
            for edge in inputs.get(_key(state.flow), ()):
                print_line(f"  reads {names[_key(edge.upstream)]}{_consumed(edge)}")
        if answer.is_truncated:
            print_line("and more; give smaller depths, or ask about a flow farther up or down")

    run(command)


def diff(
    instance: InstanceArgument,
    before: Annotated[str, typer.Option("--from", help=f"The earlier moment: {MOMENT}.", show_default=False)],
    after: Annotated[str, typer.Option("--to", help="The later moment; by default now.")] = "",
    flow: FlowOption = "",
    upstream_depth: _Depth = 0,
    downstream_depth: _Depth = 0,
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what differs around a flow between two moments: flows, versions, statuses and edges."""

    async def command(client: AsyncClient) -> None:
        first, second = await parse_moment(client, before), await parse_moment(client, after)
        if first is None:
            raise typer.BadParameter(f"give {MOMENT}", param_hint="--from")
        answer = await client.lineage.diff(
            await find_past_instance(client, instance, project),
            first,
            second,
            flow or None,
            upstream_depth=upstream_depth,
            downstream_depth=downstream_depth,
        )
        if is_data(output):
            print_data(answer, output)
            return
        print_line(f"revision {answer.before_revision} -> {answer.after_revision}")
        if not answer.flows:
            print_line("nothing differs")
        for each in answer.flows:
            for line in _difference(each):
                print_line(line)
        if answer.is_truncated:
            print_line(
                "only the nearest flows are compared; give smaller depths, or ask about a flow farther up or down"
            )

    run(command)


def _key(flow: FlowRef) -> tuple[str, int]:
    return flow.instance_id, flow.flow_kind


def _name(flow: FlowRef, instance_name: str) -> str:
    return f"{instance_name or flow.instance_id}/{word(flow, 'flow_kind').lower()}"


def _line(state: lineage_pb2.FlowState) -> tuple[str, ...]:
    if state.hidden:
        return (_HIDDEN, word(state, "status"))
    return (
        _name(state.flow, state.instance_name),
        word(state, "status"),
        f"version {state.current_version.version}",
    )


def _consumed(edge: lineage_pb2.Edge) -> str:
    return f" version {edge.consumed_version}" if edge.consumed_version else ""


def _difference(each: api.FlowDifference) -> Iterator[str]:
    """Yield the lines that show what differs in a flow: what was added, removed, or is otherwise."""
    if each.hidden:
        yield f"~ {_HIDDEN}"
        return
    name = _name(each.flow, each.instance_name)
    if each.change == api.LINEAGE_CHANGE_ADDED:
        yield f"+ {name}: {word(each.after, 'status')}, version {each.after.current_version.version}"
    elif each.change == api.LINEAGE_CHANGE_REMOVED:
        yield f"- {name}: {word(each.before, 'status')}, version {each.before.current_version.version}"
    else:
        changes = ", ".join(_changes(each))
        yield f"~ {name}: {changes}" if changes else f"~ {name}"
    for edge in each.edges:
        if edge.hidden:
            yield f"    ~ {_HIDDEN}"
            continue
        name = _name(edge.upstream, edge.upstream_name)
        if not edge.HasField("before"):
            yield f"    + {name} as {edge.after.role}{_consumed(edge.after)}"
        elif not edge.HasField("after"):
            yield f"    - {name} as {edge.before.role}{_consumed(edge.before)}"
        else:
            yield f"    ~ {name} as {edge.after.role}: {', '.join(_edge_changes(edge))}"


def _changes(each: api.FlowDifference) -> Iterator[str]:
    """Yield what differs in a flow itself; nothing if only the edges into it differ."""
    before, after = each.before, each.after
    if before.status != after.status:
        yield f"{word(before, 'status')} -> {word(after, 'status')}"
    if before.is_fresh != after.is_fresh and not {before.status, after.status} <= _SAY_FRESHNESS:
        yield "not fresh -> fresh" if after.is_fresh else "fresh -> not fresh"
    if before.current_version.version != after.current_version.version:
        yield f"version {before.current_version.version} -> {after.current_version.version}"
    elif before.current_version.version_id != after.current_version.version_id:
        yield f"another output as version {after.current_version.version}"
    if each.before_fingerprint != each.after_fingerprint:
        yield "other configuration"
    if before.current_version.compute_fingerprint != after.current_version.compute_fingerprint:
        yield "output of another configuration"
    if before.instance_name != after.instance_name:
        yield f"was named {before.instance_name}"


def _edge_changes(edge: api.EdgeDifference) -> Iterator[str]:
    """Yield what differs in an edge that is there at both moments."""
    before, after = edge.before, edge.after
    if before.kind != after.kind:
        yield f"{word(before, 'kind')} -> {word(after, 'kind')}"
    if before.consumed_version != after.consumed_version:
        yield f"read version {before.consumed_version} -> {after.consumed_version}"
