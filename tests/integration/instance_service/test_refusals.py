"""Bad input: each has its code, its typed reason and its paths, and leaves nothing behind."""

from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.instance.v1.instance_pb2 import Instance, Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateInstanceRequest,
    CreateProjectRequest,
    DeleteInstanceRequest,
    GetInstanceRequest,
    GetProjectRequest,
    ListInstanceRevisionsRequest,
)
from support.instance_service import RunningInstanceService, derived, refusal

NOBODY = "01900000-0000-7000-8000-000000000001"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def project_id(service: RunningInstanceService) -> str:
    """A project with one dataset, `prices`."""
    project = await service.project()
    await service.prices(project.project_id, "prices")
    return project.project_id


def _dataset(project_id: str, config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    pipeline = {"definitionName": "sp500_prices", "config": config}
    return {"projectId": project_id, "name": "bad", "dataset": {"pipeline": pipeline}, **fields}


async def test_every_violation_of_a_config_is_listed_with_its_path(
    service: RunningInstanceService, project_id: str
) -> None:
    before = await service.row_counts()
    config = {"symbols": [1, "AAPL", "AAPL"], "start": "2021-02-30", "as_of": "20211231", "speed": 3}
    refused = await refusal(service.create(_dataset(project_id, config)))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_CONFIG")
    prefix = "instance.dataset.pipeline.config"
    assert set(refused.fields) == {
        f"{prefix}.symbols[0]", f"{prefix}.symbols", f"{prefix}.start", f"{prefix}.as_of", f"{prefix}.speed",
    }  # fmt: skip
    assert await service.row_counts() == before


@pytest.mark.parametrize(
    ("expression", "position"),
    [("ZSCORE(WOBBLE(close, 3))", "position 7"), ("REF(close", "position 9"), ("close +* 2", "position 7")],
)
async def test_a_bad_expression_is_refused_at_its_position(
    service: RunningInstanceService, project_id: str, expression: str, position: str
) -> None:
    prices = (await service.prices(project_id, "other")).instance_id
    before = await service.row_counts()
    given = derived(project_id, "bad", prices)
    given["dataset"]["pipeline"]["config"]["expression"] = expression
    refused = await refusal(service.create(given))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_EXPRESSION")
    assert position in refused.fields["instance.dataset.pipeline.config.expression"]
    assert await service.row_counts() == before


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({"cron": {"expression": "61 * * * *"}}, "cron.expression"),
        ({"cron": {"expression": "0 0 31 feb *"}}, "cron.expression"),
        ({"cron": {"expression": "0 0 31 2 1"}}, "cron.expression"),
        ({"cron": {"expression": "48 14 31 jun sun"}}, "cron.expression"),
        ({"cron": {"expression": "30 16 * * 1-5", "timezone": "Mars/Base"}}, "cron.timezone"),
        ({"interval": {"minutes": 5, "windowStart": "09:30"}}, "interval"),
        ({"interval": {"minutes": 5, "windowStart": "10:00", "windowEnd": "09:00"}}, "interval"),
        ({"interval": {"minutes": 1440, "businessDaysOnly": True}}, "interval"),
        ({"interval": {"minutes": 5, "timezone": "../etc"}}, "interval.timezone"),
    ],
)
async def test_a_bad_schedule_is_refused(
    service: RunningInstanceService, project_id: str, schedule: dict[str, Any], field: str
) -> None:
    refused = await refusal(service.create(_dataset(project_id, {}, schedule=schedule)))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_SCHEDULE")
    assert f"instance.schedule.{field}" in refused.fields


async def test_numbers_are_decimal_and_formats_are_those_of_the_rfcs(
    service: RunningInstanceService, project_id: str
) -> None:
    properties = {
        "tick": {"type": "number", "multipleOf": 0.01},
        "open": {"type": "string", "format": "time"},
        "every": {"type": "string", "format": "duration"},
        "host": {"type": "string", "format": "hostname"},
        "source": {"type": "string", "format": "uri"},
    }
    version = {"version": "1.0.0", "codeRef": "acme:Ticks", "parametersSchema": {"properties": properties}}
    given = {"name": "ticks", "kind": "DEFINITION_KIND_PIPELINE", "definitionVersion": version}
    await service.definitions.PublishDefinition(json_format.ParseDict(given, PublishDefinitionRequest()))

    def ticks(config: dict[str, Any]) -> dict[str, Any]:
        pipeline = {"definitionName": "ticks", "config": config}
        return {"projectId": project_id, "name": "ticks", "dataset": {"pipeline": pipeline}}

    for tick in (0.05, 4.02, 0.07, 0.29, 1.11, 19.99, 1e7 + 0.01):
        await service.create(ticks({"tick": tick}), validate_only=True)
    for time in ("10:30:00Z", "16:00:00-05:00", "09:30:00.5+01:00"):
        await service.create(ticks({"open": time}), validate_only=True)
    wrong = {"tick": 4.025, "open": "10:30:00", "every": "soon", "host": "-bad-", "source": "not a uri"}
    refused = await refusal(service.create(ticks(wrong), validate_only=True))
    assert set(refused.fields) == {f"instance.dataset.pipeline.config.{name}" for name in wrong}


@pytest.mark.parametrize("timezone", ["Mars/Base", "EST5", "+09:00", "localtime", "../etc/passwd"])
async def test_a_time_zone_that_no_calendar_has_is_refused(
    service: RunningInstanceService, project_id: str, timezone: str
) -> None:
    given = _dataset(project_id, {})
    given["dataset"]["timezone"] = timezone
    refused = await refusal(service.create(given))
    assert (refused.code, list(refused.fields)) == (INVALID, ["instance.dataset.timezone"])
    assert f"{timezone!r} is not an IANA time zone" in refused.fields["instance.dataset.timezone"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"freshnessPolicy": {"exchangeCalendar": "NO_SUCH"}}, "freshness_policy.exchange_calendar"),
        ({"freshnessPolicy": {"exchangeCalendar": "XNYZ"}}, "freshness_policy.exchange_calendar"),
        ({"freshnessPolicy": {"grace": "-86400s"}}, "freshness_policy.grace"),
        ({"autoRefresh": {"minInterval": "-1s"}}, "auto_refresh.min_interval"),
        ({"autoRefresh": {"minInterval": "2592001s"}}, "auto_refresh.min_interval"),
        ({"freshnessPolicy": {"dueTime": "24:00"}}, "freshness_policy.due_time"),
        ({"freshnessPolicy": {"dueLag": 251}}, "freshness_policy.due_lag"),
        ({"freshnessPolicy": {"timezone": "Asia/Tokyo"}}, "freshness_policy.timezone"),
        ({"freshnessPolicy": {"dueTime": "16:30", "timezone": "Mars"}}, "freshness_policy.timezone"),
        ({"schedule": {"retryPolicy": {"delay": "-60s"}}}, "schedule.retry_policy.delay"),
        ({"schedule": {"retryPolicy": {"maxDelay": "-1s"}}}, "schedule.retry_policy.max_delay"),
        ({"schedule": {"retryPolicy": {"delay": "604801s"}}}, "schedule.retry_policy.delay"),
    ],
)
async def test_times_that_make_no_sense_are_refused(
    service: RunningInstanceService, project_id: str, fields: dict[str, Any], path: str
) -> None:
    for name, needed in (("freshnessPolicy", {"frequency": "FREQUENCY_DAILY"}), ("schedule", {"manual": {}})):
        if name in fields:
            fields = {name: {**needed, **fields[name]}}
    refused = await refusal(service.create(_dataset(project_id, {}, **fields)))
    assert (refused.code, list(refused.fields)) == (INVALID, [f"instance.{path}"])


async def test_unknown_ids_are_named(service: RunningInstanceService, project_id: str) -> None:
    before = await service.row_counts()
    unknown_project = await refusal(service.prices(NOBODY))
    assert (unknown_project.code, unknown_project.reason) == (NOT_FOUND, "PROJECT_NOT_FOUND")
    missing = await refusal(service.instances.GetInstance(GetInstanceRequest(instance_id=NOBODY)))
    assert (missing.code, missing.reason) == (NOT_FOUND, "INSTANCE_NOT_FOUND")
    project = await refusal(service.instances.GetProject(GetProjectRequest(project_id=NOBODY)))
    assert (project.code, project.reason) == (NOT_FOUND, "PROJECT_NOT_FOUND")
    upstream = await refusal(service.derived(project_id, "d", NOBODY))
    assert (upstream.code, upstream.reason) == (NOT_FOUND, "UPSTREAM_NOT_FOUND")
    assert "instance.upstream_refs[0]" in upstream.fields
    given = _dataset(project_id, {})
    given["dataset"]["pipeline"] = {"definitionName": "nothing"}
    definition = await refusal(service.create(given))
    assert (definition.code, definition.reason) == (NOT_FOUND, "DEFINITION_NOT_FOUND")
    given["dataset"]["pipeline"] = {"definitionId": "rubbish"}
    assert (await refusal(service.create(given))).reason == "DEFINITION_NOT_FOUND"
    revisions = ListInstanceRevisionsRequest(instance_id=NOBODY)
    assert (await refusal(service.instances.ListInstanceRevisions(revisions))).reason == "INSTANCE_NOT_FOUND"
    updated = await refusal(service.update(NOBODY, {"description": "x"}, "description"))
    assert updated.reason == "INSTANCE_NOT_FOUND"
    assert await service.row_counts() == before


async def test_upstreams_of_the_wrong_kind_or_number_are_refused(
    service: RunningInstanceService, project_id: str
) -> None:
    prices = await service.prices(project_id, "p")
    signal = await service.signal(project_id, "s", prices.instance_id)
    backtest = await service.create(
        {"projectId": project_id, "name": "b", "backtest": {"signals": {"primary": signal.instance_id}}}
    )
    before = await service.row_counts()
    wrong = await refusal(service.derived(project_id, "d", backtest.instance_id))
    assert (wrong.code, wrong.reason) == (INVALID, "WRONG_UPSTREAM_KIND")
    assert "instance.upstream_refs[0]" in wrong.fields
    primary = {
        "projectId": project_id,
        "name": "c",
        "backtest": {"signals": {"primary": backtest.instance_id}},
    }
    assert (await refusal(service.create(primary))).reason == "WRONG_UPSTREAM_KIND"
    component = await refusal(service.derived(project_id, "d", prices.dataset.store_instance_id))
    assert component.reason == "WRONG_UPSTREAM_KIND"
    none = await refusal(service.derived(project_id, "d"))
    assert (none.code, none.reason) == (INVALID, "INVALID_SPEC")
    twice = await refusal(service.derived(project_id, "d", prices.instance_id, prices.instance_id))
    assert twice.reason == "INVALID_SPEC"
    assert await service.row_counts() == before


@pytest.mark.parametrize(
    ("backtest", "field"),
    [
        ({"dateRange": {"start": "2015-02-31"}}, "date_range.start"),
        ({"dateRange": {"start": "2015-01-02", "end": "0000-01-01"}}, "date_range"),
        ({"dateRange": {"end": "2015-13-01"}}, "date_range.end"),
        ({"config": {"slippageModel": "linear", "slippageRate": 11}}, "config.slippage_rate"),
        ({"config": {"transactionCosts": 1, "initialCapital": 0.001}}, "config.transaction_costs"),
    ],
)
async def test_a_backtest_that_could_never_run_is_refused(
    service: RunningInstanceService, project_id: str, backtest: dict[str, Any], field: str
) -> None:
    prices = await service.prices(project_id, "p")
    signal = await service.signal(project_id, "s", prices.instance_id)
    before = await service.row_counts()
    given = {"signals": {"primary": signal.instance_id}, **backtest}
    refused = await refusal(service.create({"projectId": project_id, "name": "b", "backtest": given}))
    assert refused.code == INVALID
    assert f"instance.backtest.{field}" in refused.fields
    assert await service.row_counts() == before


async def test_a_neutral_value_outside_the_bounds_is_refused(
    service: RunningInstanceService, project_id: str
) -> None:
    prices = await service.prices(project_id, "p")
    given = derived(project_id, "s", prices.instance_id)
    contract = {"minValue": 1, "maxValue": 3, "nanPolicy": "NAN_POLICY_NEUTRAL"}
    signal = {"signal": {"dataset": given.pop("dataset"), "contract": contract}, **given}
    refused = await refusal(service.create(signal))
    assert (refused.code, list(refused.fields)) == (INVALID, ["instance.signal.contract"])
    contract["neutralValue"] = 2
    assert await service.create(signal)


async def test_a_name_is_taken_once_and_free_after_deletion(
    service: RunningInstanceService, project_id: str
) -> None:
    before = await service.row_counts()
    taken = await refusal(service.prices(project_id, "prices"))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    assert await service.row_counts() == before
    twice = await refusal(service.project())
    assert (twice.code, twice.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    elsewhere = await service.project("elsewhere")
    other = await service.prices(elsewhere.project_id, "prices")
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=other.instance_id))
    again = await service.prices(elsewhere.project_id, "prices")
    assert again.instance_id != other.instance_id


async def test_components_come_with_their_dataset(service: RunningInstanceService, project_id: str) -> None:
    component = await refusal(service.create({"projectId": project_id, "name": "x", "store": {}}))
    assert (component.code, component.reason) == (INVALID, "UNSUPPORTED_KIND")


async def test_missing_fields_of_a_creation_are_named(
    service: RunningInstanceService, project_id: str
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "instance"),
        ({"dataset": {}}, "instance.dataset.pipeline"),
        ({"signal": {}}, "instance.signal.dataset.pipeline"),
        ({"backtest": {}}, "instance.backtest.signals.primary"),
        ({"experiment": {}}, "instance"),
        ({"model": {}}, "instance"),
        ({"portfolioOptimizer": {}}, "instance"),
    ]
    for given, field in cases:
        refused = await refusal(service.create({"projectId": project_id, "name": "x", **given}))
        assert (refused.code, refused.reason) == (INVALID, "INVALID_SPEC")
        assert field in refused.fields
    pipeline = {"definitionName": "sp500_prices"}
    nameless = await refusal(service.create({"projectId": project_id, "dataset": {"pipeline": pipeline}}))
    assert (nameless.reason, list(nameless.fields)) == ("INVALID_SPEC", ["instance.name"])


async def test_all_mistakes_come_at_once(service: RunningInstanceService, project_id: str) -> None:
    given = _dataset(project_id, {"speed": 1}, schedule={"cron": {"expression": "a b c d e"}})
    given["config"] = {"misplaced": True}
    refused = await refusal(service.create(given))
    assert set(refused.field_reasons.values()) == {"INVALID_CONFIG", "INVALID_SCHEDULE", "INVALID_SPEC"}


async def test_contract_rules_hold(service: RunningInstanceService, project_id: str) -> None:
    bad = CreateInstanceRequest(instance=Instance(project_id=project_id, name="9 lives"))
    refused = await refusal(service.instances.CreateInstance(bad))
    assert refused.code == INVALID
    assert "instance.name" in refused.fields


async def test_an_experiment_reads_datasets_or_signals_as_its_input(
    service: RunningInstanceService, project_id: str
) -> None:
    given = {"projectId": project_id, "name": "e", "experiment": {}, "definitionName": "REF"}
    given["config"] = {"x": "close", "n": 1}
    none = await refusal(service.create(given))
    assert (none.code, list(none.fields)) == (INVALID, ["instance.upstream_refs"])
    refs = [{"resourceId": (await service.prices(project_id)).instance_id, "role": "whatever"}]
    odd = await refusal(service.create({**given, "upstreamRefs": refs}))
    assert "instance.upstream_refs[0]" in odd.fields
    refs[0]["role"] = "input"
    assert (await service.create({**given, "upstreamRefs": refs})).revision == 1


async def test_a_project_is_checked_without_being_stored(
    service: RunningInstanceService, project_id: str
) -> None:
    before = await service.row_counts()
    request = CreateProjectRequest(project=Project(name="other"), validate_only=True, request_id="dry")
    checked = await service.instances.CreateProject(request)
    assert checked.name == "other"
    assert await service.row_counts() == before
    name = (await service.instances.GetProject(GetProjectRequest(project_id=project_id))).name
    for is_dry in (True, False):
        request = CreateProjectRequest(project=Project(name=name), validate_only=is_dry)
        taken = await refusal(service.instances.CreateProject(request))
        assert (taken.reason, list(taken.fields)) == ("NAME_TAKEN", ["project.name"])


async def test_a_version_that_reads_nothing_has_no_upstreams(
    service: RunningInstanceService, project_id: str
) -> None:
    prices = await service.prices(project_id)
    reference = {"resourceId": prices.instance_id, "role": "input"}
    refused = await refusal(service.create(_dataset(project_id, {}, upstreamRefs=[reference])))
    assert refused.fields == {"instance.upstream_refs[0]": "sp500_prices takes no upstreams; remove it"}
    version = {
        "version": "1.0.0",
        "codeRef": "a:B",
        "readsNothing": True,
        "compatibilityRules": [{"role": "x"}],
    }
    given = {"name": "torn", "kind": "DEFINITION_KIND_PIPELINE", "definitionVersion": version}
    request = json_format.ParseDict(given, PublishDefinitionRequest())
    torn = await refusal(service.definitions.PublishDefinition(request))
    assert list(torn.fields) == ["definition_version.compatibility_rules"]
