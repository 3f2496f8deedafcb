"""Random bindings and random graphs, against a model: what a confined caller may ask for, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, STATUS_READY, FlowRef
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as lineage_api
from servicekit import access
from servicekit.access import MethodAccess
from servicekit.admission import Admission
from servicekit.auth import Identity
from servicekit.bindings import Grants
from servicekit.confinement import stand_in
from servicekit.context import RequestContext
from servicekit.errors import PermissionDeniedError
from servicekit.ids import new_id

PROJECTS = [new_id() for _ in range(4)]
INSTANCES = {new_id(): PROJECTS[number % 4] for number in range(10)}
UNKNOWN = new_id()
NAMES = list(INSTANCES)
READ = MethodAccess(
    "/optaic.lineage.v1.LineageService/GetFlowState", access.READ, is_by_project=True, needs_project=True
)
MAINTAIN = MethodAccess(
    "/optaic.lineage.v1.LineageService/InvalidateFlow",
    access.MAINTAIN,
    is_by_project=True,
    needs_project=True,
)
PERMITTING = {
    READ: {"viewer", "researcher", "maintainer"},
    MAINTAIN: {"maintainer"},
}
roles = st.sampled_from(["", "viewer", "researcher", "maintainer"])


class Known:
    """The parts that admission asks: one caller, its grants, and where instances are."""

    def __init__(self, wide: str, by_project: Mapping[str, str]) -> None:
        self.grants = Grants(
            frozenset({wide} - {""}), {each: frozenset({role} - {""}) for each, role in by_project.items()}
        )

    async def authenticate(self, *_: Any) -> Identity:
        return Identity("default", "ada", frozenset({"maintainer"}))

    async def find(self, *_: Any) -> Grants:
        return self.grants

    async def locate(self, _: str, ids: Collection[str]) -> Mapping[str, str]:
        return {each: INSTANCES[each] for each in ids if each in INSTANCES}


def flow(instance_id: str) -> FlowRef:
    return FlowRef(instance_id=instance_id, flow_kind=FLOW_KIND_REFRESH)


async def ask(known: Any, method: MethodAccess, target: str, answer: Any) -> tuple[str, Any]:
    """Return what the method sees as its target, or that it is denied; and what the caller sees of the answer."""
    admission = Admission(known, known, known.locate)
    request = RequestContext("", "", "", "")
    wanted = lineage_api.GetFlowStateRequest(flow=flow(target))
    try:
        await admission.admit(request, method, {}, "peer")
        seen = await admission.confine(request, method, wanted)
    except PermissionDeniedError:
        return "denied", None
    assert wanted.flow.instance_id == target  # what the caller gave is not changed
    return seen.flow.instance_id, await admission.hide(request, answer)


@settings(max_examples=300, deadline=None)
@given(
    wide=roles,
    by_project=st.dictionaries(st.sampled_from(PROJECTS), roles),
    method=st.sampled_from([READ, MAINTAIN]),
    target=st.sampled_from([*NAMES, UNKNOWN]),
    pairs=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=12),
)
def test_what_a_caller_reaches_and_sees_is_what_the_model_says(
    wide: str, by_project: dict[str, str], method: MethodAccess, target: str, pairs: list[tuple[str, str]]
) -> None:
    answer = lineage_api.GetLineageGraphResponse(
        flows=[
            lineage_pb2.FlowState(flow=flow(each), instance_name=f"name {each}", status=STATUS_READY)
            for each in NAMES
        ],
        edges=[lineage_pb2.Edge(upstream=flow(up), downstream=flow(down), role="r") for up, down in pairs],
    )
    seen, shown = asyncio.run(ask(Known(wide, by_project), method, target, answer))

    def may(wanted: MethodAccess, project: str | None) -> bool:
        return wide in PERMITTING[wanted] or by_project.get(project or "", "") in PERMITTING[wanted]

    project = INSTANCES.get(target)
    is_wide = wide in PERMITTING[method]
    if not is_wide and not any(may(method, each) for each in by_project):
        assert seen == "denied"
        return
    if is_wide:
        assert seen == target
    elif project is None or not may(READ, project):
        assert seen == stand_in(target)
    else:
        assert seen == (target if may(method, project) else "denied")
    if shown is None:
        return
    hidden = {} if is_wide else {each for each in NAMES if not may(READ, INSTANCES[each])}
    stands = {}
    for each, state in zip(NAMES, shown.flows, strict=True):
        assert state.hidden is (each in hidden)
        assert state.status == STATUS_READY
        assert (state.instance_name == "") is state.hidden
        stands[each] = state.flow.instance_id
        assert (state.flow.instance_id == each) is not state.hidden
    assert len(set(stands.values())) == len(NAMES)
    for (up, down), edge in zip(pairs, shown.edges, strict=True):
        assert (edge.upstream.instance_id, edge.downstream.instance_id) == (stands[up], stands[down])
        assert edge.hidden is bool({up, down} & set(hidden))
        assert (edge.role == "") is edge.hidden
    assert not any(each in str(shown) for each in hidden)


def test_each_change_of_a_rehearsal_is_the_request_of_one_method() -> None:
    changes = instance_api.Change.DESCRIPTOR.oneofs_by_name["change"].fields
    found = {field.name: access.access_of_request(field.message_type).name for field in changes}
    assert found == {name: "".join(word.capitalize() for word in name.split("_")) for name in found}
    with pytest.raises(ValueError, match="0 methods"):
        access.access_of_request(lineage_pb2.Edge.DESCRIPTOR)
