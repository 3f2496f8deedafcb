"""`optaic admin recompute`: all parts are compared, and what was repaired is shown."""

import json

from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.lineage.v1 import lineage_service_pb2 as api
from support.command_line import ID, invoke
from support.fake_services import FakeServices

FLOW = FlowRef(instance_id=ID, flow_kind=FLOW_KIND_REFRESH)


def _answer(request: api.RecomputeFreshnessRequest, _context: object) -> api.RecomputeFreshnessResponse:
    if request.page_token:
        return api.RecomputeFreshnessResponse(compared_count=3, repaired_flows=[FLOW])
    return api.RecomputeFreshnessResponse(compared_count=500, next_page_token="more")


def test_all_pages_are_asked_for_and_the_repaired_flows_are_shown(optaic: FakeServices) -> None:
    optaic.on("RecomputeFreshness", _answer)
    assert invoke("admin", "recompute").stdout == (
        f"{ID}  refresh  repaired\n503 flows compared, 1 repaired\n"
    )
    requests = [call.request for call in optaic.calls("RecomputeFreshness")]
    assert [request.page_token for request in requests] == ["", "more"]
    assert requests[0].request_id != requests[1].request_id
    assert json.loads(invoke("admin", "recompute", "-o", "json").stdout)[0]["instance_id"] == ID
