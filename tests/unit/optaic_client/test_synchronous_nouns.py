"""The nouns of the synchronous client have the methods of the asynchronous ones, with their arguments and documents."""

import inspect
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from optaic import Client
from optaic.client import AsyncClient
from optaic.client.connection import Connection
from optaic.client.instance_fields import InstanceChanges
from optaic.client.messages import our_name
from optaic.client.synchronous.loop import Plain
from optaic.instance.v1 import instance_pb2, spec_pb2
from support import synchronous_client
from support.fake_services import FakeServices

ID = "00000000-0000-0000-0000-000000000001"
# What the services set, and what other arguments of the methods say.
NOT_GIVEN = {
    *("instance_id", "project_id", "kind", "state", "revision", "etag", "flows", "conditions"),
    *("create_time", "update_time", "owner_instance_id", "macro_version_ids"),
}


@pytest.fixture
def client(addressed: FakeServices) -> Iterator[Client]:
    del addressed
    with Client.connect() as client:
        yield client


@pytest.mark.parametrize("module", synchronous_client.NOUNS)
def test_a_module_is_what_is_generated_today(module: str) -> None:
    written = (synchronous_client.TARGET / f"{module}.py").read_text(encoding="utf-8")
    assert written == dict(synchronous_client.modules())[module], "run make client"


def test_every_noun_is_there(client: Client) -> None:
    whole = AsyncClient(Connection({}, "", 1.0, None, None))
    nouns = {name for name in vars(whole) if not name.startswith("_")}
    assert nouns == {name for name in vars(client) if not name.startswith("_")}
    assert {name for name in nouns if name != "refresh"} == {
        name for name in nouns if isinstance(getattr(client, name), Plain)
    }


def test_every_method_has_the_same_arguments_and_document(client: Client) -> None:
    whole = AsyncClient(Connection({}, "", 1.0, None, None))
    for noun, there in vars(whole).items():
        if noun.startswith("_") or noun == "refresh":
            continue
        here = getattr(client, noun)
        names = [name for name, _ in inspect.getmembers(type(there), inspect.isfunction)]
        for name in (each for each in names if not each.startswith("_")):
            mine, other = getattr(type(here), name), getattr(type(there), name)
            assert list(inspect.signature(mine).parameters.values()) == list(
                inspect.signature(other).parameters.values()
            )
            assert inspect.getdoc(mine) == inspect.getdoc(other)
            assert not inspect.iscoroutinefunction(mine)


def test_connect_takes_the_same_arguments() -> None:
    assert inspect.signature(Client.connect).parameters == inspect.signature(AsyncClient.connect).parameters


def test_a_misspelt_noun_or_argument_is_refused_by_type_checkers_as_well(client: Client) -> None:
    with pytest.raises(AttributeError):
        client.projectz.create("research")  # type: ignore[attr-defined]  # the point of this test
    with pytest.raises(TypeError):
        client.projects.create("research", nonsense=1)  # type: ignore[call-arg]  # the point of this test
    with pytest.raises(ValueError, match="nonsense"):
        client.instances.create(project="p", name="n", nonsense=1)  # type: ignore[call-arg]  # the same
    with pytest.raises(AttributeError):
        client.runs.submitt(ID)  # type: ignore[attr-defined]  # the same


def test_the_fields_of_an_instance_are_those_of_the_contract() -> None:
    known = {field.name for field in instance_pb2.Instance.DESCRIPTOR.fields} - NOT_GIVEN
    backtest = {field.name for field in spec_pb2.BacktestSpec.DESCRIPTOR.fields}
    given = set(typing.get_type_hints(InstanceChanges))
    assert known <= given
    assert {our_name(each) for each in given} <= known | backtest


def test_a_handle_that_was_not_constructed_names_the_missing_attribute() -> None:
    for name in ("RunHandle", "RefreshHandle"):
        module = synchronous_client._OURS[name]
        handle: Any = getattr(__import__(f"optaic.client.synchronous.{module}", fromlist=[name]), name)
        bare = handle.__new__(handle)
        with pytest.raises(AttributeError):
            _ = bare._target


def test_no_method_answers_with_an_asynchronous_iterator(client: Client) -> None:
    for noun in (each for name, each in vars(client).items() if not name.startswith("_")):
        for _, method in inspect.getmembers(type(noun), inspect.isfunction):
            returned = str(inspect.signature(method).return_annotation)
            assert AsyncIterator.__name__ not in returned
            assert "AsyncGenerator" not in returned
