"""`--filter` says the same as the options of a list, and refuses everything else."""

import pytest
import typer

from optaic.cli.filters import combine
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2
from support.command_line import ID, PRICES, invoke
from support.fake_services import FakeServices

_WORDS: dict[str, list[str] | None] = {"kind": ["model"], "status": None, "label": None}
_SINGLE = {"owner": "", "name": "", "name_prefix": ""}


@pytest.fixture
def lists(optaic: FakeServices) -> FakeServices:
    """Services that answer each list."""
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())
    optaic.on("ListRuns", run_service_pb2.ListRunsResponse())
    optaic.on("ListRefreshes", run_service_pb2.ListRefreshesResponse())
    optaic.on("GetDefinition", definition_pb2.Definition(definition_id=ID, name="smooth"))
    return optaic


@pytest.mark.parametrize(
    ("noun", "method", "filters", "options"),
    [
        (
            ("status", "list"),
            "ListInstanceStatuses",
            "status=stale,kind=signal,label.team=alpha,owner=ann,name=mom*,cause=overdue,flow=refresh",
            "--status stale --kind signal --label team=alpha --owner ann --name-prefix mom --cause overdue --flow refresh",
        ),
        (
            ("status", "list"),
            "ListInstanceStatuses",
            "status=stale, status=error",
            "--status stale --status error",
        ),
        (("status", "count"), "ListInstanceStatuses", "name=momentum", "--name momentum"),
        (
            ("instance", "list"),
            "ListInstances",
            f"kind=dataset,state=paused,label.a=b,owner=ann,name=n,definition={ID}",
            f"--kind dataset --state paused --label a=b --owner ann --name n --definition {ID}",
        ),
        (("run", "list"), "ListRuns", "status=failed,flow=training", "--status failed --flow training"),
        (("refreshes", "list"), "ListRefreshes", "status=running", "--status running"),
    ],
)
def test_a_filter_asks_for_what_the_options_ask_for(
    lists: FakeServices, noun: tuple[str, str], method: str, filters: str, options: str
) -> None:
    invoke(*noun, "--filter", filters)
    by_filter = lists.calls(method)[-1].request
    invoke(*noun, *options.split())
    assert by_filter == lists.calls(method)[-1].request
    assert by_filter.ListFields()


def test_the_filters_of_instances_reach_the_service(lists: FakeServices) -> None:
    invoke("instance", "list", "--filter", "state=paused,owner=ann")
    request = lists.calls("ListInstances")[-1].request
    assert (list(request.states), request.owner) == ([instance_pb2.INSTANCE_STATE_PAUSED], "ann")


def test_the_filters_of_runs_reach_the_service(lists: FakeServices) -> None:
    invoke("run", "list", PRICES.name, "--filter", "status=failed")
    assert list(lists.calls("ListRuns")[-1].request.statuses) == [run_pb2.RUN_STATUS_FAILED]


def test_filters_add_to_options() -> None:
    several, single = combine(["kind=signal,name=a", "owner=ann"], _WORDS, {**_SINGLE, "owner": "ann"})
    assert several == {"kind": ["model", "signal"], "status": [], "label": []}
    assert single == {"owner": "ann", "name": "a", "name_prefix": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("knd=signal", "did you mean kind"),
        ("label=team", "label.NAME"),
        ("name_prefix=a", "must be one of kind, label.NAME, name, owner, status"),
        ("status!=stale", "excludes"),
        ("kind", "has not the form key=value"),
        ("kind=", "has not the form key=value"),
        ("=signal", "has not the form key=value"),
        ("kind=signal,", "has not the form key=value"),
        ("", "has not the form key=value"),
        ("owner=ann,owner=bob", "two values"),
        ("owner==ann", "write owner=ann"),
        ("label.team==alpha", "write label.team=alpha"),
        ("name=*tum", "not at its end"),
        ("name=m*tum*", "not at its end"),
        ("name=mom*,name=mo*", "two beginnings"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        combine([text], _WORDS, _SINGLE)


@pytest.mark.parametrize("filters", ["kind=car", "status=tired", "knd=signal"])
@pytest.mark.usefixtures("lists")
def test_an_unknown_value_or_key_is_wrong_usage(filters: str) -> None:
    invoke("status", "list", "--filter", filters, status=2)


@pytest.mark.usefixtures("lists")
def test_a_list_without_prefixes_refuses_a_star() -> None:
    assert "without" in invoke("instance", "list", "--filter", "name=mom*", status=2).stderr
