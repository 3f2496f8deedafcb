"""The rule for when a run may compute only what its inputs have changed, over the product of what decides it."""

from __future__ import annotations

import itertools
from typing import Any

from lineage_service.domain.flows import Flow
from lineage_service.domain.increments import InputChange, why_full
from servicekit.ids import new_id


def _flow(**changes: Any) -> Flow:
    values: dict[str, Any] = dict.fromkeys(Flow.__dataclass_fields__, "")
    numbers = {
        "version": 3, "completed_run_number": 5, "full_run_number": 5, "invalidated_run_number": -1, "partial_run_number": 0,
        "instance_id": new_id(), "flow_kind": "refresh", "fingerprint": "f", "computed_fingerprint": "f", "readers_hash": "r",
    }  # fmt: skip
    return Flow(**values | numbers | changes)


GOOD = InputChange("input", 2, "r", is_known=True, start="2024-01-02", end="2024-01-03")
# What is wrong -> the flow, the upstream, its change, and a word of the reason.
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], InputChange, str]] = {
    "no version": ({"version": 0}, {}, GOOD, "no version"),
    "another configuration": ({"fingerprint": "g"}, {}, GOOD, "configuration"),
    "verified for another one": (
        {"fingerprint": "g", "verified_fingerprint": "g", "verified_run_number": 5}, {}, GOOD, "configuration",
    ),
    "a range": ({"completed_run_number": 6}, {}, GOOD, "range"),
    "invalidated": ({"invalidated_run_number": 5}, {}, GOOD, "invalid"),
    "never read": ({}, {}, GOOD._replace(consumed_version=0), "not read"),
    "no output": ({}, {"version": 0}, GOOD, "not read"),
    "read otherwise": ({}, {"readers_hash": "s"}, GOOD, "another way"),
    "unknown readers": ({}, {"readers_hash": ""}, GOOD._replace(consumed_readers_hash=""), "another way"),
    "an unknown change": ({}, {}, GOOD._replace(is_known=False), "which dates"),
}  # fmt: skip


def test_each_condition_alone_is_enough_to_compute_everything() -> None:
    assert why_full(_flow(), [(_flow(), [GOOD])]) == ""
    for name, (own, upstream, change, word) in WRONG.items():
        for others in itertools.permutations([(_flow(), [GOOD]), (_flow(**upstream), [GOOD, change])]):
            assert word in why_full(_flow(**own), others), name


def test_an_input_that_did_not_move_needs_no_dates() -> None:
    still = GOOD._replace(consumed_version=3, is_known=False, start="", end="")
    assert why_full(_flow(), [(_flow(), [still])]) == ""


def test_the_reason_names_no_upstream() -> None:
    """Who reads a run may not see each of its upstreams."""
    for own, upstream, change, _ in WRONG.values():
        hidden = _flow(**upstream, instance_name="secret project")
        assert "secret" not in why_full(_flow(**own), [(hidden, [change])])
