"""Runs as table rows: converting a run to columns and back changes nothing."""

import math
from datetime import UTC, datetime

from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from run_service.store.records import message_json, run_columns
from servicekit.enums import enum_number, enum_word


def test_words_and_numbers_of_enums_belong_together() -> None:
    assert enum_word(run_pb2.RunKind, run_pb2.RUN_KIND_PORTFOLIO_OPTIMIZATION) == "portfolio_optimization"
    assert enum_number(run_pb2.RunKind, "portfolio_optimization") == run_pb2.RUN_KIND_PORTFOLIO_OPTIMIZATION


def test_numbers_that_json_does_not_have_become_null() -> None:
    metrics = Struct()
    metrics.update({"a": math.nan, "b": [1.5, math.inf], "c": {"d": -math.inf, "e": "xy", "f": True}})
    assert message_json(metrics) == {"a": None, "b": [1.5, None], "c": {"d": None, "e": "xy", "f": True}}


def test_absent_messages_are_null_columns() -> None:
    run = run_pb2.Run(
        flow_kind=flow_pb2.FLOW_KIND_REFRESH,
        kind=run_pb2.RUN_KIND_PIPELINE,
        status=run_pb2.RUN_STATUS_PENDING,
        trigger=run_pb2.RUN_TRIGGER_MANUAL,
        mode=run_pb2.RUN_MODE_FULL,
    )
    run.submit_time.FromDatetime(datetime(2024, 1, 2, tzinfo=UTC))
    columns = run_columns(run)
    assert columns["submit_time"] == datetime(2024, 1, 2, tzinfo=UTC)
    assert columns["end_time"] is None
    assert columns["error"] is None
    assert columns["orchestrator_run_id"] is None
