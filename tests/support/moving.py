"""run-service as `optaic admin move-data` sees it, and the two places of a tenant's data."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optaic.run.v1 import data_move_service_pb2 as api
from optaic.run.v1 import run_pb2, run_service_pb2
from support.command_line import ID
from support.fake_services import FakeServices

CONTENT = b"what the run wrote"
PLACE = f"{ID}/refresh/runs/r/a.txt"
Move = api.DataMove


class MovingService:
    """run-service, as far as moves go."""

    def __init__(self, optaic: FakeServices, folder: Path) -> None:
        self.source, self.target = folder / "source", folder / "target"
        self.move = Move(tenant_id="default", data_root=str(self.source))
        self.active: Iterator[int] = iter(())  # runs, each time when somebody asks while they are held
        self.changes: dict[
            int, dict[str, Any]
        ] = {}  # by other calls, before the n-th time that somebody asks
        self.on_look: Callable[[int], None] = lambda _number: None
        self.on_begin: dict[str, Any] = {}
        self._looks = itertools.count(1)
        self.run = run_pb2.Run(run_id=ID, instance_id=ID, status=run_pb2.RUN_STATUS_COMPLETED)
        self.record(str(self.source))
        self.write(self.source, CONTENT)
        self._optaic = optaic
        optaic.on("GetDataMove", lambda *_: self._look())
        optaic.on("BeginDataMove", self._begin)
        optaic.on("SwitchDataMove", lambda *_: self._answer(state=Move.STATE_SWITCHED))
        optaic.on(
            "EndDataMove", lambda *_: self._answer(state=Move.STATE_UNSPECIFIED, from_root="", to_root="")
        )
        optaic.on("ListRuns", lambda *_: self._list())
        optaic.on("GetRun", lambda *_: self.run)

    def record(self, root: str) -> None:
        """Have the run record its outputs below a root."""
        uri = f"{root}/default/{PLACE}"
        self.run.outputs_uri = uri.removesuffix("a.txt")
        self.run.output_version.uri = self.run.outputs_uri
        self.run.artifacts["a"] = uri
        del self.run.artifact_manifest[:]
        self.run.artifact_manifest.add(
            name="a", uri=uri, size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest()
        )

    def write(self, root: Path, content: bytes) -> None:
        place = root / "default" / PLACE
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def copied(self) -> bytes:
        return (self.target / "default" / PLACE).read_bytes()

    def calls(self) -> list[str]:
        """Return the calls that change something."""
        methods = [each.method for each in self._optaic.seen]
        return [each for each in methods if each.endswith("DataMove") and each != "GetDataMove"]

    def forget(self) -> None:
        """Begin to count anew."""
        self._optaic.seen.clear()
        self._looks = itertools.count(1)

    def _look(self) -> Move:
        number = next(self._looks)
        self.on_look(number)
        return self._answer(**self.changes.get(number, {}))

    def _list(self) -> run_service_pb2.ListRunsResponse:
        listed = run_pb2.Run()
        listed.CopyFrom(self.run)
        listed.ClearField("artifact_manifest")
        return run_service_pb2.ListRunsResponse(runs=[listed])

    def _begin(self, request: Any, _context: object) -> Move:
        held = {"state": Move.STATE_HELD, "from_root": request.from_root, "to_root": request.to_root}
        return self._answer(**{**held, **self.on_begin})

    def _answer(self, **changes: Any) -> Move:
        for name, value in changes.items():
            setattr(self.move, name, value)
        is_held = self.move.state == Move.STATE_HELD
        self.move.active_run_count = next(self.active, 0) if is_held else 0
        answer = Move()
        answer.CopyFrom(self.move)
        return answer
