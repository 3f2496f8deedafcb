"""The types of admission: they ensure that only runs checked by lineage-service can be inserted."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import run_service
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import run_pb2
from run_service.use_cases import admission, submission
from run_service.use_cases.admission import Admission, FoundFlow, WantedRun, admit

Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse
FOUND = FoundFlow(
    "t",
    instance_pb2.Instance(instance_id="i"),
    instance_pb2.Flow(flow_kind=flow_pb2.FLOW_KIND_REFRESH),
    "refresh",
    "pipeline",
)
WANTED = WantedRun("i", 1, run_pb2.RUN_TRIGGER_MANUAL, "somebody")


async def judged(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Admission:
    """Return the admission that `admit` creates for an answer of lineage-service."""

    async def ask(*_: object, **__: object) -> list[admission._Answered]:
        return [admission._Answered(answer, 3, None)]

    monkeypatch.setattr(admission, "_ask", ask)
    deps: Any = None
    return await admit(deps, FOUND, WANTED)


async def test_admit_returns_an_admission(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await judged(monkeypatch, Answer(all_ready=True))
    assert (made.found, made.wanted, made.run_number) == (FOUND, WANTED, 3)


def test_an_admission_cannot_be_created_outside_admit() -> None:
    with pytest.raises(TypeError, match="admit"):
        Admission(FOUND, WANTED, Answer(all_ready=True), 1, None, judgement=object())
    with pytest.raises(TypeError, match="judgement"):
        Admission(FOUND, WANTED, Answer(all_ready=True), 1, None)  # type: ignore[call-arg]  # mypy says the same


async def test_an_admission_cannot_be_copied_with_other_values(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await judged(monkeypatch, Answer(all_ready=True))
    forced = replace(WANTED, force=True)
    with pytest.raises(ValueError, match="judgement"):
        replace(made, wanted=forced)  # type: ignore[call-arg]  # mypy says the same


def test_inserting_a_run_requires_an_admission() -> None:
    hints = get_type_hints(submission.insert_run)
    assert hints["admission"] is Admission
    assert not {FoundFlow, WantedRun} & set(hints.values())
    assert not issubclass(FoundFlow, Admission)


def test_only_admit_calls_the_constructor_of_admission() -> None:
    folder = Path(inspect.getfile(run_service)).parent
    makers = [
        f"{path.name}:{node.lineno}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "_JUDGEMENT"
    ]
    assert {maker.split(":")[0] for maker in makers} == {"admission.py"}
    assert (
        inspect.getsource(admission).count("_JUDGEMENT") == 3
    )  # made, compared, handed over by the judgement
    assert "_JUDGEMENT" in inspect.getsource(admission._judge)
