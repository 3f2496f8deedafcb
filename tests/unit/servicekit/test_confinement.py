"""What stands in for ids that a caller may not read, and what answers hide: by the contracts, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1.flow_pb2 import (
    FLOW_KIND_REFRESH,
    FLOW_KIND_TRAINING,
    STATUS_READY,
    STATUS_STALE,
    FlowRef,
    InputVersion,
)
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as lineage_api
from optaic.run.v1 import run_events_pb2, run_pb2
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.status.v1 import status_pb2
from servicekit import confinement
from servicekit.errors import FieldViolation, NotFoundError, PreconditionViolation
from servicekit.ids import is_id, new_id

MINE, THEIRS, OTHERS = new_id(), new_id(), new_id()
UNREADABLE = frozenset({THEIRS, OTHERS})


def flow(instance_id: str, kind: Any = FLOW_KIND_REFRESH) -> FlowRef:
    return FlowRef(instance_id=instance_id, flow_kind=kind)


def state(instance_id: str, **fields: Any) -> lineage_pb2.FlowState:
    return lineage_pb2.FlowState(
        flow=flow(instance_id),
        instance_name=f"name of {instance_id}",
        status=STATUS_STALE,
        run_number=7,
        last_run_id=new_id(),
        **fields,
    )


def cause(origin: str, upstream: str = "") -> lineage_pb2.Cause:
    return lineage_pb2.Cause(
        kind=lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED,
        origin=flow(origin),
        origin_name=f"name of {origin}",
        from_version=1,
        to_version=2,
        message=f"{origin} moved, says {upstream}",
        upstream=flow(upstream) if upstream else None,
    )


def tells(message: Any) -> bool:
    return any(each in str(message) for each in UNREADABLE)


def test_ids_are_found_in_the_fields_that_name_something_and_nowhere_else() -> None:
    config = Struct()
    config.update({"instance_id": OTHERS})
    given = instance_api.UpdateInstanceRequest(
        instance=instance_pb2.Instance(
            instance_id=MINE.upper(),
            labels={"source": OTHERS},
            description=OTHERS,
            config=config,
            upstream_refs=[instance_pb2.UpstreamRef(resource_id=THEIRS, role="input")],
        ),
        request_id=OTHERS,
    )
    assert list(confinement.ids_of(given)) == [(MINE, 2), (THEIRS, 3)]
    before = instance_api.UpdateInstanceRequest()
    before.CopyFrom(given)
    stand_ins = confinement.mask(given, UNREADABLE)
    (reference,) = given.instance.upstream_refs
    assert stand_ins == {reference.resource_id: THEIRS}
    assert reference.resource_id == confinement.stand_in(THEIRS)
    reference.resource_id = THEIRS
    assert given == before  # nothing that is stored was changed


def test_all_that_a_backtest_reads_is_found_and_replaced() -> None:
    ids = [new_id() for _ in range(4)]
    request = instance_api.CreateInstanceRequest()
    backtest = request.instance.backtest
    backtest.signals.primary, backtest.assets.membership_id = ids[0], ids[1]
    backtest.signals.secondary.append(ids[2])
    backtest.assets.universe.extend(["AAPL", ids[3].upper()])
    assert {each for each, _ in confinement.ids_of(request)} == set(ids)
    assert len(confinement.mask(request, ids)) == len(ids)
    assert not {each for each, _ in confinement.ids_of(request)} & set(ids)
    assert backtest.assets.universe[0] == "AAPL"


def test_a_repeated_field_keeps_its_order_and_an_upper_case_id_is_replaced_too() -> None:
    given = run_api.ListRunsRequest(instance_ids=[THEIRS.upper(), MINE, OTHERS])
    stand_ins = confinement.mask(given, UNREADABLE)
    assert given.instance_ids == [confinement.stand_in(THEIRS), MINE, confinement.stand_in(OTHERS)]
    assert stand_ins[confinement.stand_in(THEIRS)] == THEIRS.upper()


def test_an_error_names_what_the_caller_gave() -> None:
    ours = confinement.stand_in(THEIRS)
    error = NotFoundError(
        "INSTANCE_NOT_FOUND",
        f"there is no instance {ours}",
        metadata={"instance_id": ours},
        field_violations=[FieldViolation("instance_id", f"no {ours}")],
        preconditions=[PreconditionViolation("GONE", ours, f"no {ours}")],
    )
    confinement.unmask(error, {ours: THEIRS})
    told = f"{error.message} {error.metadata} {error.field_violations} {error.preconditions}"
    assert ours not in told
    assert told.count(THEIRS) == 5


def test_a_hidden_flow_tells_its_status_only_and_edges_still_connect() -> None:
    graph = lineage_api.GetLineageGraphResponse(
        flows=[state(MINE), state(THEIRS, causes=[cause(OTHERS)]), state(OTHERS)],
        edges=[
            lineage_pb2.Edge(upstream=flow(THEIRS), downstream=flow(MINE), role="input", consumed_version=3),
            lineage_pb2.Edge(upstream=flow(OTHERS), downstream=flow(THEIRS), role="input"),
            lineage_pb2.Edge(upstream=flow(MINE), downstream=flow(MINE), role="input", consumed_version=4),
        ],
    )
    wanted = lineage_api.GetLineageGraphResponse()
    wanted.CopyFrom(graph)
    confinement.hide(graph, UNREADABLE)
    assert not tells(graph)
    first, second = (each.flow.instance_id for each in graph.flows[1:])
    assert first != second
    assert is_id(first)
    for each in graph.flows[1:]:
        assert each == lineage_pb2.FlowState(
            flow=FlowRef(instance_id=each.flow.instance_id), status=STATUS_STALE, hidden=True
        )
    assert graph.edges[0] == lineage_pb2.Edge(
        upstream=FlowRef(instance_id=first), downstream=flow(MINE), hidden=True
    )
    assert graph.edges[1] == lineage_pb2.Edge(
        upstream=FlowRef(instance_id=second), downstream=FlowRef(instance_id=first), hidden=True
    )
    assert (graph.flows[0], graph.edges[2]) == (wanted.flows[0], wanted.edges[2])


def test_what_stands_for_a_flow_is_another_in_each_answer_and_for_each_flow() -> None:
    def hidden() -> list[str]:
        answer = lineage_api.GetExecutionOrderResponse(
            levels=[
                lineage_api.ExecutionLevel(
                    flows=[flow(THEIRS), flow(THEIRS, FLOW_KIND_TRAINING), flow(THEIRS)]
                )
            ]
        )
        confinement.hide(answer, UNREADABLE)
        return [each.instance_id for each in answer.levels[0].flows]

    first, second, again = hidden()
    assert first == again != second
    assert {first, second}.isdisjoint(hidden())


def test_a_text_goes_if_it_may_repeat_what_is_hidden() -> None:
    answer = lineage_api.CheckUpstreamFreshnessResponse(
        blocking=[
            lineage_pb2.BlockingFlow(
                flow=flow(MINE),
                instance_name="mine",
                status=STATUS_STALE,
                reason=f"stale: {THEIRS} moved",
                causes=[cause(THEIRS)],
            ),
            lineage_pb2.BlockingFlow(
                flow=flow(MINE), status=STATUS_STALE, reason="stale: mine", causes=[cause(MINE)]
            ),
            lineage_pb2.BlockingFlow(
                flow=flow(THEIRS),
                status=STATUS_READY,
                reason="never ran",
                is_missing_input=True,
                run_number=4,
            ),
        ],
        input_versions=[
            InputVersion(role="input", instance_id=THEIRS, flow_kind=FLOW_KIND_REFRESH, uri="s3://theirs")
        ],
        known_runs=[lineage_api.KnownRun(flow=flow(THEIRS), run_number=4)],
    )
    confinement.hide(answer, UNREADABLE)
    assert not tells(answer)
    mine, same, theirs = answer.blocking
    assert (mine.instance_name, mine.reason, mine.hidden) == ("mine", "", False)
    assert [(each.hidden, each.kind, each.message) for each in mine.causes] == [(True, 0, "")]
    assert same.reason == "stale: mine"
    assert theirs == lineage_pb2.BlockingFlow(flow=theirs.flow, status=STATUS_READY, hidden=True)
    (version,) = answer.input_versions
    assert version == InputVersion(instance_id=theirs.flow.instance_id, hidden=True)
    assert answer.known_runs[0] == lineage_api.KnownRun(flow=theirs.flow, hidden=True)


@pytest.mark.parametrize("given", [cause(THEIRS), cause(MINE, THEIRS), cause(THEIRS, MINE)])
def test_a_cause_that_concerns_a_hidden_flow_tells_nothing(given: lineage_pb2.Cause) -> None:
    confinement.hide(given, UNREADABLE)
    assert given.hidden
    assert not tells(given)
    assert {field.name for field, _ in given.ListFields()} <= {"hidden", "origin", "upstream"}


def test_a_scheduled_time_hides_the_flows_that_it_waits_for() -> None:
    wait = run_events_pb2.FlowWait(flow_count=2)
    for instance_id in (THEIRS, MINE):
        wait.flows.add(
            flow=flow(instance_id), instance_name=f"name of {instance_id}", reason="a run is active"
        )
    status = status_pb2.InstanceStatus(
        instance_id=MINE, status=STATUS_READY, flows=[status_pb2.FlowStatus(waiting_for=wait)]
    )
    assert THEIRS in confinement.subjects_of(status)
    confinement.hide(status, UNREADABLE)
    hidden, shown = status.flows[0].waiting_for.flows
    assert THEIRS not in str(status)
    assert (hidden.hidden, hidden.instance_name, hidden.reason) == (True, "", "")
    assert (shown.hidden, shown.reason) == (False, "a run is active")


def test_a_path_hides_its_steps() -> None:
    answer = lineage_api.ExplainStalenessResponse(
        flow_state=state(MINE),
        explanations=[
            lineage_pb2.StalenessExplanation(
                cause=cause(OTHERS),
                direct_upstream=flow(THEIRS),
                path=[
                    lineage_pb2.PathStep(flow=flow(each), instance_name=f"name of {each}")
                    for each in (OTHERS, THEIRS, MINE)
                ],
            )
        ],
    )
    confinement.hide(answer, UNREADABLE)
    assert not tells(answer)
    (found,) = answer.explanations
    assert [step.hidden for step in found.path] == [True, True, False]
    assert found.cause.origin == found.path[0].flow
    assert found.direct_upstream == found.path[1].flow


def test_an_instance_hides_the_upstreams_that_its_reader_may_not_read() -> None:
    given = instance_pb2.Instance(
        instance_id=MINE,
        name="mine",
        upstream_refs=[
            instance_pb2.UpstreamRef(resource_id=each, role="input", name=f"name of {each}")
            for each in (THEIRS, MINE)
        ],
        flows=[instance_pb2.Flow(upstreams=[instance_pb2.FlowEdge(upstream=flow(THEIRS), role="input")])],
    )
    confinement.hide(given, UNREADABLE)
    assert not tells(given)
    assert [(each.hidden, each.role) for each in given.upstream_refs] == [(True, ""), (False, "input")]
    assert given.flows[0].upstreams[0].hidden


def test_a_backtest_hides_what_it_reads_and_an_id_stands_for_the_same_upstream_everywhere_in_it() -> None:
    given = instance_pb2.Instance(
        instance_id=MINE, upstream_refs=[instance_pb2.UpstreamRef(resource_id=THEIRS, role="signal")]
    )
    given.backtest.signals.primary = given.backtest.assets.membership_id = THEIRS
    given.backtest.signals.secondary.extend([MINE, THEIRS])
    given.backtest.assets.universe.extend(["AAPL", THEIRS])
    assert confinement.subjects_of(given) == {THEIRS, MINE}
    confinement.hide(given, UNREADABLE)
    assert not tells(given)
    (reference,) = given.upstream_refs
    assert given.backtest.signals.primary == given.backtest.assets.membership_id == reference.resource_id
    assert given.backtest.signals.secondary == [MINE, reference.resource_id]
    assert given.backtest.assets.universe == ["AAPL", reference.resource_id]


def test_a_run_is_itself_not_hidden_but_what_it_read_is() -> None:
    run = run_pb2.Run(
        run_id=new_id(),
        instance_id=MINE,
        input_versions=[InputVersion(role="input", instance_id=THEIRS, instance_name="theirs", version=3)],
    )
    assert confinement.subjects_of(run) == {THEIRS}
    confinement.hide(run, UNREADABLE)
    assert not tells(run)
    assert "theirs" not in str(run)
