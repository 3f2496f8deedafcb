"""kill -9 in the middle of a run that prints much: its log has each line once, in order, and says what is missing."""

import os
import re
import signal
from itertools import accumulate
from pathlib import Path

import pytest

from optaic.rules.run_logs import PRINTED
from optaic.run.v1 import run_pb2
from support import campaigns
from support.client import create_dataset, create_project
from support.mortal_worker import LOG_BYTES
from support.polling import PATIENCE, eventually
from support.processes import list_run_processes
from support.run_moments import LINES_SENT
from support.seven_kinds import SevenKinds

pytestmark = pytest.mark.faults
_LINES = 20_000  # of 100 bytes each
_SCHEMA = {"type": "object", "properties": {"how": {"type": "string"}, "lines": {"type": "number"}}}
_PRINTED = [*(f"line {number}" for number in range(1, 31)), *(f"{number:099}" for number in range(_LINES))]
_TOO_MUCH = f"[optaic: this log has reached its limit of {LOG_BYTES} bytes; "
_REST = re.compile(r"\[optaic: [0-9]+ further lines of the run are not in this log\]")


@pytest.mark.parametrize(
    ("victim", "moment"),
    [("worker", LINES_SENT), ("worker", ""), ("guardian", "")] if campaigns.IS_FULL else [],
)
async def test_the_log_of_a_killed_run_has_each_line_once(
    kinds: SevenKinds, victim: str, moment: str
) -> None:
    content = {"version": "1.0.0", "code_ref": "support.dying_plugins:Dying", "parameters_schema": _SCHEMA}
    await kinds.client.definitions.publish("printing", "pipeline", content)
    project = await create_project(kinds.client, "printing")
    config = {"how": "print and hold", "lines": _LINES}
    printing = await create_dataset(kinds.client, project, "printing", "printing", config)
    if moment:
        kinds.gate.hold(moment)
    handle = await kinds.client.runs.submit(printing)
    if moment:
        await kinds.gate.wait_until_full(PATIENCE)
    await eventually(lambda: _is_full(kinds.mortal.unsent, handle.run_id), PATIENCE)  # the guardian goes on
    if victim == "worker":
        await kinds.mortal.kill()
        kinds.mortal.restart()
    else:
        os.kill(list_run_processes(kinds.mortal.worker.pid)[0], signal.SIGKILL)
    run = await handle.wait(timeout=PATIENCE)
    assert run.error.type == ("WORKER_LOST" if victim == "worker" else "PROCESS_KILLED")
    await eventually(lambda: not list(kinds.mortal.unsent.glob(f"{run.run_id}.*")), PATIENCE)
    read = [line.message async for line in handle.logs()]
    notes = [message for message in read if message.startswith("[optaic: ")]
    assert read[: len(read) - len(notes)] == _expected()
    assert notes[0].startswith(_TOO_MUCH)
    if victim == "worker":  # the guardian has ended the log
        assert _REST.fullmatch(notes[1])
    assert len(notes) == (2 if victim == "worker" else 1)
    assert [line.message async for line in handle.watch_logs()] == read
    assert (await kinds.client.runs.get(run.run_id)).status == run_pb2.RUN_STATUS_FAILED


def _expected() -> list[str]:
    """Return the printed lines that have room, each with the name of its logger."""
    ends = accumulate(len(line) + len(PRINTED) for line in _PRINTED)
    return [line for line, end in zip(_PRINTED, ends, strict=True) if end <= LOG_BYTES]


def _is_full(folder: Path, run_id: str) -> bool:
    return any(_TOO_MUCH in path.read_text(encoding="utf-8") for path in folder.glob(f"{run_id}.*"))
