"""A run-service and a worker that takes what waits, while time passes step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from run_service.domain.pairing import FlowRunState, close
from run_service.domain.statuses import RunStatus
from servicekit.enums import enum_word
from support.pairing_states import Row
from support.run_service import RunningRunService


def word(run: run_pb2.Run) -> RunStatus:
    return RunStatus(enum_word(run_pb2.RunStatus, run.status))


@dataclass
class Case:
    """A row of the table, made real."""

    row: Row
    is_alive: bool
    instance: instance_pb2.Instance
    run_id: str = ""
    flow_run_id: str = ""
    token: str = ""

    @property
    def expected(self) -> str:
        return self.row.alive if self.is_alive else self.row.dead


class Workshop:
    """The service, and a worker that takes what waits in the queue, unless it is told to leave it."""

    def __init__(self, service: RunningRunService) -> None:
        self.service = service
        self.takes = True

    async def prepare(self, row: Row, *, is_alive: bool) -> Case:
        """Bring a run and its flow run where the row has them."""
        service = self.service
        case = Case(row, is_alive, service.instances.add())
        case.run_id = (await service.submit(case.instance)).run_id
        while await service.dispatcher.step():
            pass
        case.flow_run_id = (await service.get(case.run_id)).orchestrator_run_id
        if row.ours is not RunStatus.PENDING:
            case.token = (await service.start(case.run_id, case.flow_run_id)).fencing_token
        if row.ours is RunStatus.COMPLETED:
            await service.complete(case.run_id, case.token)
        elif row.ours is RunStatus.FAILED:
            await service.fail(case.run_id, case.token)
        elif row.ours is RunStatus.CANCELLED:
            await service.cancel(case.run_id)
        if row.prefect is None:
            service.orchestrator.delete_flow_run(case.flow_run_id)
        else:
            service.orchestrator.flow_runs[case.flow_run_id] = row.prefect
        return case

    async def pass_time(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """Let every loop look again and again, and the worker work."""
        service = self.service
        for _ in range(int(seconds)):
            service.clock.advance(1)
            await service.leases.step()
            for loop in (service.observer, service.dispatcher, service.ender):
                while await loop.step():
                    pass
            await service.sweeper.step()
            await service.ticker.step()
            if self.takes:
                await self.take_what_waits()
            each()

    async def take_what_waits(self) -> None:
        service = self.service
        for flow_run_id, state in list(service.orchestrator.flow_runs.items()):
            run_id = service.orchestrator.listed[flow_run_id].run_id
            if state is not FlowRunState.WAITING or not run_id:
                continue
            service.orchestrator.flow_runs[flow_run_id] = FlowRunState.RUNNING
            await self.finish(run_id, flow_run_id)

    async def finish(self, run_id: str, flow_run_id: str, token: str = "") -> None:
        """Execute a run to its end, as the process that has its flow run does; refused, it stops."""
        state = FlowRunState.COMPLETED
        try:
            token = token or (await self.service.start(run_id, flow_run_id)).fencing_token
            await self.service.complete(run_id, token)
        except grpc.aio.AioRpcError:
            state = FlowRunState.CANCELLED
        if flow_run_id in self.service.orchestrator.flow_runs:
            self.service.orchestrator.flow_runs[flow_run_id] = state

    async def are_alike(self, run: run_pb2.Run) -> bool:
        state = self.service.orchestrator.flow_runs.get(run.orchestrator_run_id)
        return close(FlowRunState(word(run).upper()), state, is_settled=True) == "done"

    async def count_endings(self) -> int:
        async with self.service.app.deps.database.infra() as connection:
            rows = await connection.exec_driver_sql("select count(*) from endings")
        return int(rows.scalar_one())
