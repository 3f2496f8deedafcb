"""Roles, parameters of runs and the default time zone: pages, contracts and programs mean the same."""

import re

import pytest

from instance_service.domain.rules import BACKTEST_RULES, DEFAULT_RULES
from optaic.rules import roles
from optaic.rules.kinds import FLOWS, TIMEZONE
from optaic.rules.run_parameters import DATA_DATE, END, PARAMETERS, RANGE, REPIN_TYPES, START, SWITCHES
from run_service.domain.parameters import is_partial_range
from support.contract import ROOT, comments, page, words_in
from worker.recipe import StoredData

WORDS = {name: word for name, word in vars(roles).items() if name.isupper()}


def test_the_page_states_the_roles_of_each_kind() -> None:
    rows = [line.split("|") for line in (ROOT / "docs/instances.md").read_text().splitlines()]
    stated = {row[1].strip(): set(re.findall(r"`(\w+)`", row[3])) for row in rows if len(row) == 6}
    assert stated["backtest"] - {"signals"} == {rule.role for rule in BACKTEST_RULES}
    for kind, rules in DEFAULT_RULES.items():
        assert {rule.role for rule in rules} == stated[kind.replace("_", " ")]


def test_roles_have_the_names_of_stored_edges() -> None:
    assert set(WORDS.values()) == {
        "input", "signal", "secondary_signal", "prices", "membership", "optimizer", "features", "target",
        "covariance", "model", "monitored",
    }  # fmt: skip


def test_parameters_belong_to_flows_that_there_are() -> None:
    assert set(PARAMETERS) <= {flow for flows in FLOWS.values() for flow in flows}
    assert PARAMETERS["refresh"] == ("start", "end", "data_date", "repin_types")
    assert {*RANGE, *SWITCHES} <= set(PARAMETERS["refresh"])
    for flow, names in PARAMETERS.items():
        assert flow == "refresh" or names == (DATA_DATE,), "the others are only cut at a day"


@pytest.mark.parametrize("name", [START, END, DATA_DATE, REPIN_TYPES])
def test_only_a_range_leaves_dates_out(name: str) -> None:
    assert is_partial_range([name]) is (name in RANGE)


def test_the_contract_states_the_range_and_the_time_zone() -> None:
    said = comments()
    assert {START, END} <= set(words_in(said["optaic.run.v1.Run.is_partial_range"]))
    assert TIMEZONE in said["optaic.instance.v1.DatasetSpec.timezone"]
    assert f"`{REPIN_TYPES}`" in page("sources.md")


def test_a_dataset_without_a_time_zone_is_read_in_the_default_one() -> None:
    assert StoredData.__dataclass_fields__["timezone"].default == TIMEZONE == "UTC"
