"""Deliver what runs owe: at once where the system is there, else later; a run that did not complete has it withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import grpc
import structlog

from optaic.run.v1 import run_pb2, run_report_service_pb2
from servicekit import context
from servicekit.backoff import backoff
from servicekit.ids import new_id
from servicekit.status import from_rpc_error
from worker.config import Settings
from worker.peers import Peers
from worker.run_output import prepare_folder
from worker.telemetry.debts import Debt, Delivered, Deliverer, UnreachableError
from worker.telemetry.evidently_adapter import EvidentlySnapshots
from worker.telemetry.mlflow_adapter import MlflowDeliverer
from worker.telemetry.owing import EVIDENTLY, MLFLOW
from worker.telemetry.spool import Spool, SpoolFullError
from worker.written_files import FileGoneError

_SETTING = "OPTAIC_TELEMETRY_FOLDER"
_CALL_SECONDS = 10.0  # one report to run-service
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
_LOST = {"FENCED", "RUN_NOT_FOUND"}  # the run was given up, or is gone with its instance
_State = run_report_service_pb2.TelemetryState
_Report = run_report_service_pb2.ReportTelemetryRequest
_log = structlog.get_logger(__name__)


class Telemetry:
    """The debts of all runs of a worker, and their deliverers by system."""

    def __init__(self, settings: Settings, deliverers: Mapping[str, Deliverer]) -> None:
        self._settings = settings
        self._deliverers = deliverers
        self._spool = Spool(Path(settings.telemetry_folder), settings.telemetry_entries)
        self._news = asyncio.Event()

    async def owe(self, debts: Sequence[Debt], answer: run_report_service_pb2.CompleteRunRequest) -> None:
        """Keep what a run owes before it completes, try for a limited time to deliver it, and say in the completion what is left.

        What user code has said of it there does not count.
        """
        names, pending, dropped = Delivered(), [], {}
        for debt in debts:
            try:
                await asyncio.to_thread(self._keep, debt)
            except (OSError, SpoolFullError) as error:
                _log.error("telemetry dropped", run_id=debt.run_id, system=debt.system, error=repr(error))
                dropped[debt.system] = str(error)
                continue
            try:
                async with asyncio.timeout(self._settings.telemetry_patience_seconds):
                    with self._spool.hold(debt):
                        delivered = await self._deliverers[debt.system].deliver(debt)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run completes
                _log.warning("telemetry waits", run_id=debt.run_id, system=debt.system, error=repr(error))
                pending.append(debt.system)
            else:
                names = delivered if delivered != Delivered() else names
        answer.telemetry_pending[:] = pending
        if answer.HasField("training"):
            answer.training.mlflow_run_id, answer.training.model_version = (
                names.mlflow_run_id,
                names.model_version,
            )
        if dropped:
            answer.metrics.update({"telemetry_dropped": dropped})
            said = answer.metrics.get_or_create_list("warnings")
            said.extend(f"{system} will never get this run: {why}" for system, why in dropped.items())

    async def finish(self, debts: Sequence[Debt], pending: Collection[str]) -> None:
        """Forget what was delivered of a run that has completed, and have the rest delivered soon."""
        for debt in debts:
            if debt.system not in pending:
                with contextlib.suppress(OSError):  # a sweep settles it
                    await asyncio.to_thread(self._spool.settle, debt)
        if pending:
            self._news.set()

    async def run(self, peers: Peers, stop: asyncio.Event) -> None:
        """Deliver what is left, again and again, until `stop` is set."""
        failures = 0
        while not stop.is_set():
            self._news.clear()
            try:
                failures = 0 if await self.sweep(peers) else failures + 1
            except Exception as error:  # noqa: BLE001 - a folder that is away, for example: it is tried again
                _log.warning("telemetry not looked for", error=repr(error))
                failures += 1
            delay = (
                backoff(failures, first=_FIRST_DELAY, longest=_LONGEST_DELAY) if failures else _LONGEST_DELAY
            )
            await _wait_for_either(self._news, stop, delay)

    async def sweep(self, peers: Peers) -> bool:
        """Try to settle each debt once; return whether nothing is left to try again soon."""
        is_done, away = True, set[str]()
        for debt in await asyncio.to_thread(self._list):
            if debt.system in away or debt.system not in self._deliverers:
                is_done = False
                continue
            try:
                is_done &= await self._settle(debt, peers)
            except UnreachableError as error:
                _log.info("telemetry waits", run_id=debt.run_id, system=debt.system, error=str(error))
                away.add(debt.system)
                is_done = False
            except Exception as error:  # noqa: BLE001 - one must not keep the others from being delivered
                _log.warning("telemetry waits", run_id=debt.run_id, system=debt.system, error=repr(error))
                is_done = False
        return is_done

    async def leave(self, peers: Peers) -> None:
        """Try once more what runs of this machine owe, for a limited time, and close the connections."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._settings.telemetry_patience_seconds):
                await self.sweep(peers)
        await self.close()

    async def close(self) -> None:
        """Close the connections to the systems."""
        for deliverer in self._deliverers.values():
            await deliverer.close()

    def _keep(self, debt: Debt) -> None:
        prepare_folder(Path(self._settings.telemetry_folder), _SETTING)
        self._spool.owe(debt)

    def _list(self) -> list[Debt]:
        prepare_folder(Path(self._settings.telemetry_folder), _SETTING)
        return self._spool.list()

    async def _settle(self, debt: Debt, peers: Peers) -> bool:
        """Settle one debt as its run has ended; return whether it is settled."""
        with self._spool.hold(debt) as is_held:
            if not is_held:
                return False
            run = await self._report(peers, debt)
            if run is None:
                return False
            deliverer = self._deliverers[debt.system]
            if run.status != run_pb2.RUN_STATUS_COMPLETED:
                with contextlib.suppress(FileGoneError):
                    await deliverer.withdraw(debt)
            elif debt.system in run.telemetry_pending:
                try:
                    found = await deliverer.deliver(debt.below(self._settings.data_root))
                except FileGoneError as error:
                    await self._report(peers, debt, _State.TELEMETRY_STATE_DROPPED, reason=str(error))
                else:
                    await self._report(
                        peers,
                        debt,
                        _State.TELEMETRY_STATE_DELIVERED,
                        mlflow_run_id=found.mlflow_run_id,
                        model_version=found.model_version,
                    )
            await asyncio.to_thread(self._spool.settle, debt)
            _log.info("telemetry settled", run_id=debt.run_id, system=debt.system)
            return True

    async def _report(
        self,
        peers: Peers,
        debt: Debt,
        state: _State.ValueType = _State.TELEMETRY_STATE_UNSPECIFIED,
        **said: str,
    ) -> run_pb2.Run | None:
        """Ask how a run has ended, or say what has become of its debt; None while it has not ended.

        A run that was given up, or is gone, is like one that failed.
        """
        request = _Report(
            run_id=debt.run_id, fencing_token=debt.fencing_token, system=debt.system, state=state, **said
        )
        caller = context.RequestContext(debt.tenant_id, "worker", new_id(), context.new_traceparent())
        try:
            with context.bind(caller):
                found: run_pb2.Run = await peers.runs.ReportTelemetry(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc_error(error)
            if refusal.reason == "RUN_NOT_ENDED":
                return None
            if refusal.reason in _LOST:
                return run_pb2.Run(run_id=debt.run_id, status=run_pb2.RUN_STATUS_FAILED)
            raise
        return found


async def _wait_for_either(news: asyncio.Event, stop: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(event.wait()) for event in (news, stop)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def make_telemetry(settings: Settings) -> Telemetry:
    """Return the telemetry of a worker, with a way to each system."""
    snapshots = EvidentlySnapshots(settings.evidently_workspace, settings.evidently_timeout_seconds)
    return Telemetry(settings, {MLFLOW: MlflowDeliverer(settings), EVIDENTLY: snapshots})
