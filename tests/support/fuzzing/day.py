"""The ordinary day of a tenant: every method is called as it is meant."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format

from support.definitions import MANIFESTS, experiment, model, optimizer
from support.fuzzing.moves import end_move, move_data
from support.fuzzing.processes import Services
from support.fuzzing.world import World
from support.instance_service import derived
from support.polling import eventually


class Day(World):
    """A world that lives."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._round = 0
        self.project = ""  # of the last day

    async def live(self, tenant: str = "default") -> None:
        """Live one day of a tenant: every method is called, and every call succeeds."""
        self._round += 1
        self.tenant = tenant
        tag = f"{self._round}_{uuid.uuid4().hex[:6]}"
        await self._other_tenant(tag)
        await end_move(self, tenant)
        given = {"name": f"p_{tag}", "labels": {"a": "b"}}
        self.project = project = (await self.call("CreateProject", {"project": given})).project_id
        await self._definitions(tag)
        await self.protect()
        made = await self._instances(tag, project)
        await self._changes(made)
        runs = await self._runs(made)
        await self._lineage(made)
        await self._status(project, made)
        await self._access(project, tag)
        await self._deletions(tag, made)
        await self._rehearse(tag, project)
        await self._lists(made, runs)

    async def _other_tenant(self, tag: str) -> None:
        project = await self.call("CreateProject", {"project": {"name": f"o_{tag}"}}, tenant="other")
        given = _prices(project.project_id, "theirs")
        await self.call("CreateInstance", {"instance": given}, tenant="other")
        await self.call("ListInstances", {"pageSize": 1}, tenant="other")
        await move_data(self, "other", tag)

    async def _definitions(self, tag: str) -> None:
        for name, manifest in MANIFESTS.items():
            version = {"version": "1.0.0", "codeRef": "nowhere:Nothing", **manifest}
            kind = version.pop("kind")
            given = {"name": name, "kind": kind, "definitionVersion": version, "requestId": f"d{tag}{name}"}
            await self.call("PublishDefinition", given)
        macro = {"version": "1.0.0", "opMacro": {"parameters": ["x"], "expression": "ZSCORE(REF(x, 21) / x)"}}
        given = {
            "name": f"M_{tag}".upper(),
            "kind": "DEFINITION_KIND_OP_MACRO",
            "definitionVersion": macro,
            "draft": True,
        }
        made = await self.call("PublishDefinition", given)
        for step in ("Activate", "Deprecate", "Retire"):
            request = {"definitionVersionId": made.definition_version_id, "reason": "r"}
            await self.call(f"{step}DefinitionVersion", request)
        await self.call("GetDefinition", {"definitionId": made.definition_id})
        await self.call("GetDefinition", {"kind": "DEFINITION_KIND_PIPELINE", "name": "expression"})
        await self.call("GetDefinitionVersion", {"definitionVersionId": made.definition_version_id})
        for request in ({"pageSize": 1}, {"namePrefix": "e"}, {"kind": "DEFINITION_KIND_OP"}):
            await self.call("ListDefinitions", {**request, "pageSize": 1})
        await self.call("ListDefinitionVersions", {"definitionId": made.definition_id, "pageSize": 1})

    async def _instances(self, tag: str, project: str) -> dict[str, str]:
        prices = await self._create(
            {
                **_prices(project, "prices"),
                "description": "d",
                "owner": "ada",
                "labels": {"team": "a"},
                "schedule": {
                    "cron": {"expression": "30 16 * * 1-5", "timezone": "America/New_York"},
                    "retryPolicy": {
                        "maxRetries": 2,
                        "backoff": "BACKOFF_EXPONENTIAL",
                        "delay": "5s",
                        "maxDelay": "60s",
                    },
                },
                "freshnessPolicy": {
                    "frequency": "FREQUENCY_DAILY",
                    "exchangeCalendar": "XNYS",
                    "grace": "3600s",
                },
            },
            requestId=f"c{tag}",
            reason="because",
        )
        made = {"prices": prices}
        made["derived"] = await self._create(derived(project, "derived", prices))
        signal = derived(project, "signal", prices)
        signal["signal"] = {"dataset": signal.pop("dataset"), "contract": {"minValue": -1, "maxValue": 1}}
        made["signal"] = await self._create(signal)
        made["experiment"] = await self._create(experiment(project, "experiment", prices))
        made["model"] = await self._create(model(project, "model", prices, prices))
        made["optimizer"] = await self._create(
            optimizer(project, "optimizer", made["signal"], config={"risk_aversion": 1})
        )
        backtest = {
            "assets": {"universe": [prices]},
            "signals": {"primary": made["signal"]},
            "dateRange": {"start": "2020-01-01", "end": "2021-01-01"},
            "config": {"topN": 3, "rebalanceFrequency": "weekly"},
        }
        made["backtest"] = await self._create(
            {"projectId": project, "name": "backtest", "backtest": backtest}
        )
        return made

    async def _create(self, given: Mapping[str, Any], **fields: Any) -> str:
        return str((await self.call("CreateInstance", {"instance": given, **fields})).instance_id)

    async def _changes(self, made: Mapping[str, str]) -> None:
        prices, other = made["prices"], made["derived"]
        for one, path, value in (
            (prices, "description", "new"),
            (prices, "labels", {"team": "b", "x": "y"}),
            (prices, "schedule", {"interval": {"minutes": 30, "windowStart": "09:00", "windowEnd": "16:00"}}),
            (other, "dataset.pipeline.config", {"expression": "close / REF(close, 1)"}),
            (other, "upstreamRefs", [{"resourceId": prices, "role": "input"}]),
        ):
            given: dict[str, Any] = {"instanceId": one}
            place = given
            *above, last = path.split(".")
            for each in above:
                place = place.setdefault(each, {})
            place[last] = value
            await self.call("UpdateInstance", {"instance": given, "updateMask": path})
        project = (await self.call("GetInstance", {"instanceId": prices})).project_id
        await self.call("GetInstance", {"instanceId": prices, "revision": 1})
        update = {"project": {"projectId": project, "description": "d"}, "updateMask": "description"}
        await self.call("UpdateProject", update)
        await self.call("GetProject", {"projectId": project})
        await self.call("PauseInstance", {"instanceId": prices, "reason": "r"})
        await self.call("ResumeInstance", {"instanceId": prices})
        await self.call("BatchGetInstances", {"instanceIds": list(made.values())})
        await self.call("ListInstanceRevisions", {"instanceId": prices, "pageSize": 1})
        await self.call("DiffInstanceRevisions", {"instanceId": prices, "fromRevision": 1})

    async def _runs(self, made: Mapping[str, str]) -> dict[str, str]:
        prices = made["prices"]
        done = await self.run(prices)
        await self.complete(prices, *done)
        settled = {"runId": done[0], "fencingToken": done[1], "system": "mlflow", "reason": "r"}
        await self.call("ReportTelemetry", {**settled, "state": "TELEMETRY_STATE_DELIVERED"})
        failed = await self.run(made["derived"])
        error = {"type": "ValueError", "message": "no", "lastLines": ["one"]}
        report = {"runId": failed[0], "fencingToken": failed[1], "credential": failed[2], "error": error}
        report |= {"traceback": "Traceback", "lastLogTime": "1970-01-01T00:00:00Z"}
        await self.call("FailRun", report)
        retried = await self.call("RetryRun", {"runId": failed[0]})
        await self.call("CancelRun", {"runId": retried.run_id, "reason": "r"})
        request = {"instanceId": made["derived"], "force": True, "forceReason": "because"}
        (result,) = (await self.call("BatchSubmitRuns", {"requests": [request]})).results
        await self.call("CancelRun", {"runId": result.run.run_id, "reason": "r"})
        await self.call("WatchRun", {"runId": failed[0]})
        await self.call("WatchRunLogs", {"runId": failed[0], "minLevel": "LOG_LEVEL_WARNING"})
        await self.call("GetRunTraceback", {"runId": failed[0]})
        with contextlib.suppress(grpc.aio.AioRpcError):  # no executor has written a file
            await self.call("SignArtifactUrl", {"runId": failed[0], "name": "traceback"})
        await self.call("ListRunOutputs", {"instanceId": prices, "pageSize": 1})
        await self.call("GetRun", {"runId": failed[0]})
        with contextlib.suppress(grpc.aio.AioRpcError):  # its data is made by runs
            await self.call("ReportExternalVersion", {"instanceId": prices, "externalVersion": "v1"})
        selection = {"selection": {"instanceIds": [prices], "includeDownstream": True}}
        await self.call("PlanRefresh", selection)
        refresh = {"refreshId": (await self.call("SubmitRefresh", selection)).refresh_id}
        await self.call("CancelRefresh", {**refresh, "reason": "r"})
        self.keep("ResumeRefresh", refresh)  # only kept: its runs could be in the way of those below
        await self.call("GetRefresh", refresh)
        await self.call("WatchRefresh", refresh)
        await self.call("ListRefreshFlows", {**refresh, "pageSize": 1})
        await self.call("ListRefreshes", {"statuses": ["REFRESH_STATUS_CANCELLED"], "pageSize": 1})
        found = await self.call("GetInstance", {"instanceId": prices})
        version = found.dataset.pipeline.definition_version_id
        code = {"definitionVersionId": version, "hash": "a" * 64, "reason": "same"}
        await self.call("AcceptCode", code)
        await self.call("ListCodeHashes", {"pageSize": 1})
        self.keep("WatchDispatches", {})
        # One that is under way stays so: requests that are changed reach what comes after.
        running = await self.run(prices)
        self.keep("CompleteRun", _completion(self.tenant, prices, *running))
        return {"done": done[0], "failed": failed[0], "running": running[0]}

    async def run(self, instance_id: str) -> tuple[str, str, str]:
        """Submit and start a run; return its id, fencing token and credential."""
        request = {
            "instanceId": instance_id,
            "mode": "RUN_MODE_FULL",
            "parameters": {},
            "force": True,
            "forceReason": "because",
        }
        run = await self.call("SubmitRun", request)

        async def dispatched() -> str:
            return str((await self.call("GetRun", {"runId": run.run_id})).orchestrator_run_id)

        start = {
            "runId": run.run_id,
            "orchestratorRunId": await eventually(dispatched),
            "executor": "host",
            "startSecret": "s" * 32,
            "code": [{"definitionVersionId": self.texts["definition_version_id"][0], "hash": "b" * 64}],
        }
        started = await self.call("StartRun", {key: value for key, value in start.items() if key != "code"})
        report = {
            "runId": run.run_id,
            "fencingToken": started.fencing_token,
            "credential": started.credential,
        }
        await self.call("Heartbeat", {**report, "progressPct": 5, "progressMessage": "p"})
        await self.call("ListTrainedVersions", {**report, "pageSize": 1})
        self.keep("StartRun", start)
        scheduled = {"flow": _flow(instance_id), "scheduledTime": "2024-01-02T16:30:00Z"}
        self.keep("StartRun", {"scheduled": scheduled, **{k: v for k, v in start.items() if k != "runId"}})
        return run.run_id, started.fencing_token, started.credential

    async def complete(self, instance_id: str, run_id: str, fencing_token: str, credential: str) -> None:
        """Complete a run, as its worker does."""
        await self.call(
            "CompleteRun", _completion(self.tenant, instance_id, run_id, fencing_token, credential)
        )

    async def _lineage(self, made: Mapping[str, str]) -> None:
        flow, later = _flow(made["prices"]), _flow(made["derived"])

        async def known() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.call("GetFlowState", {"flow": later})
                return True
            return False

        await eventually(known)
        instance = await self.call("GetInstance", {"instanceId": made["derived"]})
        run = await self.call("ListRuns", {"instanceId": made["prices"], "pageSize": 1})
        check = {"flow": later}
        await self.call("CheckUpstreamFreshness", check)
        full = {
            "flow": later,
            "instance": json_format.MessageToDict(instance),
            "runEvents": [
                {"eventId": str(uuid.uuid4()), "completed": {"run": json_format.MessageToDict(run.runs[0])}}
            ],
        }
        await self.call("CheckUpstreamFreshness", full, role="service")
        await self.call("BatchCheckUpstreamFreshness", {"requests": [full, check]}, role="service")
        planned = {"flows": [flow], "instanceIds": [made["derived"]], "planned": [later], "maxFlows": 9}
        await self.call("PlanFlows", {**planned, "includeUpstream": True}, role="service")
        for name in ("ListUpstreams", "ListDownstreams"):
            for one in (flow, later):
                await self.call(name, {"flow": one, "pageSize": 1, "maxDepth": 5})
        await self.call("GetLineageGraph", {"flow": flow, "upstreamDepth": 3, "downstreamDepth": 3})
        await self.call("GetExecutionOrder", {"flows": [flow, later]})
        await self.call("ExplainStaleness", {"flow": later})
        await self.call("PreviewImpact", {"flows": [flow, later], "pageSize": 1})
        state = await self.call("GetFlowState", {"flow": flow})
        revision = {"revision": str(state.revision)}
        await self.call("GetLineageGraph", {"flow": flow, "asOf": revision})
        await self.call("DiffLineage", {"flow": flow, "before": revision, "pageSize": 1})
        await self.call("InvalidateFlow", {"flow": flow, "reason": "wrong"})
        for name in ("AcceptStaleness", "RevokeAcceptedStaleness"):
            with contextlib.suppress(grpc.aio.AioRpcError):  # its upstream is not fresh any more
                await self.call(name, {"flow": later, "reason": "right"})
        await self.call("RecomputeFreshness", {"pageSize": 1})
        await self.call("MoveDataRoot", {"fromRoot": "file:///x", "toRoot": "s3://b/p"}, role="service")

    async def _status(self, project: str, made: Mapping[str, str]) -> None:
        prices = made["prices"]

        async def known() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.call("GetInstanceStatus", {"instanceId": prices})
                return True
            return False

        await eventually(known)
        await self.call("GetFlowStatus", {"flow": _flow(prices)})
        await self.call("BatchGetInstanceStatuses", {"instanceIds": [prices]})
        await self.call("ListInstanceStatuses", {"projectId": project, "pageSize": 1})
        await self.call("GetStatusHistory", {"instanceId": prices, "pageSize": 1})
        await self.call("ListInstanceAvailability", {"instanceIds": [prices], "pageSize": 1})
        await self.call("CreateRealtimeToken", {"instanceIds": [prices]})
        await self.call("WatchInstanceStatuses", {"projectId": project})
        await self.call("WatchInstanceStatuses", {"instanceIds": [prices], "fromRevision": 1})

    async def _access(self, project: str, tag: str) -> None:
        actor = {"actor": f"actor_{tag}", "projectId": project}
        await self.call("GrantRole", {**actor, "role": "ROLE_VIEWER"})
        await self.call("ListRoleBindings", {"pageSize": 1})
        await self.call("RevokeRole", actor)
        self.keep("GrantRole", {**actor, "role": "ROLE_RESEARCHER"})
        for process in self.channels:
            await self.call("ListAuditRecords", {"pageSize": 1, "actor": "admin"}, process=process)
            window = {"beginTime": "2024-01-01T00:00:00Z", "endTime": "2030-01-01T00:00:00Z", "pageSize": 2}
            await self.call("ListAuditRecords", window, process=process)
            await self.call("ListAuditSeals", {"pageSize": 1, "afterSealNumber": 0}, process=process)
            await self.call("Check", {"service": ""}, process=process)
            await self.call("Watch", {"service": ""}, process=process)

    async def _deletions(self, tag: str, made: Mapping[str, str]) -> None:
        self.keep(
            "PromoteDataset",
            {"instanceId": made["derived"], "contract": {"minValue": 0, "neutralValue": 0.5}},
        )
        self.keep("PromoteModelVersion", {"instanceId": made["model"], "modelVersion": "1", "reason": "r"})
        await self.call("RemoveChampion", {"instanceId": made["model"], "reason": "r"})
        await self.call("ListModelPromotions", {"instanceId": made["model"], "pageSize": 1})
        project = (await self.call("CreateProject", {"project": {"name": f"gone_{tag}"}})).project_id
        one = await self._create(_prices(project, "one"))
        two = await self._create(derived(project, "two", one))
        await self.call(
            "PreviewDeletion", {"deleteInstance": {"instanceId": one, "cascade": True}, "pageSize": 1}
        )
        await self.call(
            "PreviewDeletion", {"deleteProject": {"projectId": project, "cascade": True}, "pageSize": 1}
        )
        await self.call("DeleteInstance", {"instanceId": two})
        await self.call("DeleteProject", {"projectId": project, "cascade": True})
        await self.call("ListDataRemovals", {"pageSize": 1})
        claimed = await self.call("ClaimDataRemoval", {})
        finished = claimed.data_removal.instance_id or one
        self.keep("FinishDataRemoval", {"instanceId": finished, "problem": "disk"})
        await self.call("FinishDataRemoval", {"instanceId": finished})
        await self.call("ClaimProbes", {"most": 2})
        await self.call("FinishProbe", {"probe": {"instanceId": one}, "problem": "disk"})

    async def _rehearse(self, tag: str, project: str) -> None:
        version = {"version": "1.0.0", "opMacro": {"parameters": ["x"], "expression": "RANK(x)"}}
        macro = {"name": f"R_{tag}".upper(), "kind": "DEFINITION_KIND_OP_MACRO", "definitionVersion": version}
        new = {"createProject": {"project": {"name": f"r_{tag}"}}, "assumedId": "new"}
        one = {"createInstance": {"instance": _prices("new", "one")}, "assumedId": "one"}
        two = {"createInstance": {"instance": derived(project, "rehearsed", "one")}}
        changes = [new, {"publishDefinition": macro}, one, two]
        await self.call("RehearseChanges", {"changes": changes, "allowPartial": True})

    async def _lists(self, made: Mapping[str, str], runs: Mapping[str, str]) -> None:
        """Read the second page of each list, so that page tokens are among the texts."""
        lists: dict[str, dict[str, Any]] = {
            "ListProjects": {},
            "ListInstances": {"kinds": ["INSTANCE_KIND_DATASET"], "labels": {}},
            "ListRuns": {"instanceId": made["prices"]},
            "ListActivities": {"runId": runs["done"]},
            "ListRunLogs": {"runId": runs["done"]},
        }
        for name, given in lists.items():
            page = await self.call(name, {**given, "pageSize": 1})
            if page.next_page_token:
                await self.call(name, {**given, "pageSize": 1, "pageToken": page.next_page_token})


def _prices(project: str, name: str) -> dict[str, Any]:
    pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    return {"projectId": project, "name": name, "dataset": {"pipeline": pipeline}}


def _flow(instance_id: str) -> dict[str, str]:
    return {"instanceId": instance_id, "flowKind": "FLOW_KIND_REFRESH"}


def _completion(
    tenant: str, instance_id: str, run_id: str, fencing_token: str, credential: str
) -> dict[str, Any]:
    folder = f"file:///x/{tenant}/{instance_id}/refresh"
    return {
        "runId": run_id,
        "fencingToken": fencing_token,
        "credential": credential,
        "metrics": {"rows": 3, "nested": {"a": [1, 2]}},
        "artifacts": {"a": f"{folder}/runs/{run_id}/a"},
        "outputVersion": {
            "uri": f"{folder}/data",
            "digest": "d1",
            "physicalVersion": "1",
            "lastDataDate": "2024-01-02",
        },
        "telemetryPending": ["mlflow"],
        "pipeline": {},
    }
