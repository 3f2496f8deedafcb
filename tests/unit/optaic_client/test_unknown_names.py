"""Every option of every command: a name that nobody has is an error that says so, and what there is."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer

from optaic.cli.app import app
from optaic.client import AsyncClient
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.errors import NotFoundError, OptaicError
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1 import status_service_pb2
from support.command_line import ID, PRICES, invoke
from support.fake_services import FakeServices, refuse

OTHER = str(uuid.UUID(int=9))
# What each parameter names. A new one must be entered here; what names something must refuse what is unknown.
_PROJECT, _INSTANCE, _DEFINITION, _WORD = "project", "instance", "definition", "word"
_VERSION, _FREE, _NUMBER, _FLAG, _FILE, _RUN = "version", "free", "number", "flag", "file", "run"
_KINDS: dict[str, str] = {
    "output": _WORD, "project": _PROJECT, "instance": _INSTANCE, "instances": _INSTANCE, "definition": _DEFINITION,
    "kind": _WORD, "flow": _WORD, "status": _WORD, "mode": _WORD, "definitions": _WORD, "nan_policy": _WORD,
    "bounds_policy": _WORD, "version": _VERSION, "run_id": _RUN, "refresh_id": _RUN, "file": _FILE,
    # Texts that are recorded, passed on, or compared by the service.
    "reason": _FREE, "etag": _FREE, "parameter": _FREE, "index_column": _FREE, "hash_": _FREE, "manager": _FREE,
    "min_value": _NUMBER, "max_value": _NUMBER, "neutral_value": _NUMBER, "limit": _NUMBER, "parallel": _NUMBER, "from_revision": _NUMBER,
    "to_revision": _NUMBER, "name": _FREE, "description": _FREE, "label": _FREE, "remove_label": _WORD,
    "method": _WORD, "actor": _FREE, "resource": _FREE, "since": _FREE, "until": _FREE,
    "tenant": _FREE, "level": _WORD, "role": _WORD, "token": _FREE, "folder": _FREE, "host": _FREE,
    "last_date": _FREE, "cause": _WORD, "owner": _FREE, "name_prefix": _FREE, "unchanged_for": _FREE,
    "changed_within": _FREE, "as_of": _FREE, "start": _FREE, "end": _FREE, "before": _FREE, "after": _FREE,
    "upstream_depth": _NUMBER, "downstream_depth": _NUMBER, "depth": _NUMBER, "values": _FREE, "upstream": _FREE,
    "table": _FREE, "column": _FREE, "entity": _FREE, "to": _FREE, "source": _FREE, "delete_source": _FREE,
    "only_print": _FLAG, "filters": _WORD, "state": _WORD,
}  # fmt: skip
# Where a word means something else than elsewhere.
_SPECIAL: dict[tuple[str, str], str] = {
    ("instance promote-model", "version"): _FREE,
    ("run report", "version"): _FREE,
    ("data read", "version"): _FREE,
    ("data read", "file"): _FREE,
    ("open", "project"): _FREE,  # it needs an instance
}
_NEEDED = {  # what a command must be given besides
    "instance": "prices", "instances": "prices", "definition": "smooth", "version": "1.1.0", "from_revision": "1", "run_id": ID, "refresh_id": ID,
    "hash_": "abc", "reason": "why", "project": "desk", "name": "other", "actor": "ada", "role": "viewer", "before": "1",
}  # fmt: skip


@functools.cache
def _commands() -> tuple[tuple[str, Any], ...]:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "list_commands"):
            for name in command.list_commands(None):
                yield from walk(command.get_command(None, name), f"{path} {name}".strip())
        else:
            yield path, command

    return tuple(walk(typer.main.get_command(app), ""))


def _parameters() -> list[tuple[str, Any]]:
    return [
        (path, each)
        for path, command in _commands()
        for each in command.params
        if each.name not in {"help", "install_completion", "show_completion"}
    ]


def _kind(path: str, parameter: Any) -> str:
    assert parameter.name is not None
    if getattr(parameter, "is_flag", False):
        return _FLAG
    return _SPECIAL.get((path, parameter.name)) or _KINDS.get(parameter.name, "")


def _naming() -> list[tuple[str, str]]:
    kinds = {_PROJECT, _INSTANCE, _DEFINITION, _WORD, _VERSION}
    return [(path, str(each.name)) for path, each in _parameters() if _kind(path, each) in kinds]


def test_the_kind_of_every_name_parameter_is_declared() -> None:
    unknown = [f"{path}: {each.name}" for path, each in _parameters() if not _kind(path, each)]
    assert not unknown, f"say in _KINDS what these name, and see that they refuse what is unknown: {unknown}"


@pytest.fixture
def desk(addressed: FakeServices) -> FakeServices:
    """Services that know one project, one instance and one definition, and refuse all others."""
    project = instance_pb2.Project(project_id=OTHER, name="desk")
    version = definition_pb2.DefinitionVersion(version="1.1.0", definition_version_id=ID)
    smooth = definition_pb2.Definition(
        definition_id=ID, name="smooth", kind=definition_pb2.DEFINITION_KIND_PIPELINE
    )

    def one(found: Any, reason: str, *names: str) -> Any:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            given = [value for field, value in request.ListFields() if field.name in names]
            if given and all(value in {ID, OTHER, "desk", "smooth"} for value in given):
                return found
            return refuse(context, grpc.StatusCode.NOT_FOUND, reason, f"there is no such thing: {given}")

        return answer

    def instances(request: Any, _: grpc.ServicerContext) -> Any:
        is_known = request.name in {"", "prices"} and request.project_id in {"", OTHER}
        return instance_service_pb2.ListInstancesResponse(instances=[PRICES] if is_known else [])

    def instance_runs(_request: Any, _: grpc.ServicerContext) -> Any:
        return run_service_pb2.ListRunsResponse()

    def unknown(request: Any, context: grpc.ServicerContext) -> Any:
        return refuse(
            context, grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", f"no instance {request.instance_ids}"
        )

    addressed.on("GetProject", one(project, "PROJECT_NOT_FOUND", "project_id", "name"))
    addressed.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[project]))
    addressed.on("ListInstances", instances)
    addressed.on("GetInstance", one(PRICES, "INSTANCE_NOT_FOUND", "instance_id"))
    addressed.on("BatchGetInstances", unknown)
    addressed.on("GetDefinition", one(smooth, "DEFINITION_NOT_FOUND", "definition_id", "name"))
    addressed.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[smooth]))
    listed = definition_service_pb2.ListDefinitionVersionsResponse(definition_versions=[version])
    addressed.on("ListDefinitionVersions", listed)
    addressed.on("ListRuns", instance_runs)
    addressed.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())
    return addressed


def _arguments(path: str, name: str, value: str) -> list[str]:
    """Return a command line in which one parameter is given, and all that must be."""
    command = dict(_commands())[path]
    words = path.split()
    for each in command.params:
        text = value if each.name == name else _NEEDED.get(str(each.name), "") if each.required else ""
        if each.name == "definition" and name == "version":
            text = "smooth"
        if _kind(path, each) == _FILE:
            text = "desk.yaml"
        if text and each.param_type_name == "option":
            words += [each.opts[0], text]
        elif text:
            words.append(text)
    return words


@pytest.mark.parametrize(("path", "name"), _naming(), ids=[" ".join(each) for each in _naming()])
@pytest.mark.usefixtures("desk")
def test_an_unknown_name_is_an_error_that_names_it(path: str, name: str) -> None:
    Path("desk.yaml").write_text("project: desk\nmanager: m\ninstances: []\n")
    given = "nope-9"
    status = (
        3
        if _kind(path, dict(_parameters_of(path))[name]) in {_PROJECT, _INSTANCE, _DEFINITION, _VERSION}
        else 2
    )
    result = invoke(*_arguments(path, name, given), status=status)
    assert given in result.stderr
    # What there is: a name, or the words that are taken.
    assert any(word in result.stderr for word in ("there is", "must be one of", "is not one of", "it has"))
    assert "Traceback" not in result.stderr


def _parameters_of(path: str) -> list[tuple[str, Any]]:
    return [(str(each.name), each) for at, each in _parameters() if at == path]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "list", "--project", "dask"), "did you mean desk?"),
        (("instance", "get", "pricez"), "did you mean prices?"),
        (("definition", "get", "Smoth"), "did you mean smooth?"),
        (("run", "list", "--status", "faild"), "did you mean failed?"),
        (("run", "list", "--status", "unspecified"), "must be one of pending"),
        (("definition", "list", "--kind", "pipelines"), "did you mean pipeline?"),
        (("status", "list", "--project", ID[:-1] + "7"), "there is no such thing"),
        (("run", "list", "--project", ID[:-1] + "7"), "there is no such thing"),
        (("instance", "get", ID, "--project", "desk"), "not in desk"),
    ],
)
@pytest.mark.usefixtures("desk")
def test_errors_suggest_similar_names(arguments: tuple[str, ...], said: str) -> None:
    status = 2 if "--status" in arguments or "--kind" in arguments else 3
    assert said in invoke(*arguments, status=status).stderr


def test_runs_of_a_project_are_those_of_its_instances(desk: FakeServices) -> None:
    runs = [run_pb2.Run(run_id="r1", instance_id=ID, status=run_pb2.RUN_STATUS_FAILED)]
    desk.on("ListRuns", run_service_pb2.ListRunsResponse(runs=runs))
    assert "FAILED" in invoke("run", "list", "--project", "desk").stdout
    assert desk.calls("ListRuns")[0].request.instance_id == ID


def test_a_project_without_instances_has_no_runs(desk: FakeServices) -> None:
    desk.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    invoke("run", "list", "--project", "desk")
    assert not desk.calls("ListRuns")


async def test_filters_of_the_client_refuse_unknown_names(desk: FakeServices, client: AsyncClient) -> None:
    desk.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    nobody = ID[:-1] + "7"
    calls: list[Any] = [
        lambda: client.instances.list(project=nobody),
        lambda: client.instances.list(definition=nobody),
        lambda: client.instances.get_by_name("x", project=nobody),
        lambda: client.status.list(project=nobody),
        lambda: anext(client.status.watch(project=nobody)),
        lambda: anext(client.status.watch([nobody])),
        lambda: client.runs.list(nobody),
        lambda: client.runs.list(instances=[nobody, ID]),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            await call()
    words: list[Any] = [
        lambda: client.instances.list(kinds=["car"]),
        lambda: client.instances.list(states=["alive"]),
        lambda: client.instances.list(states=[99]),
        lambda: client.instances.list(kinds=[0]),
        lambda: client.status.list(statuses=["unspecified"]),
        lambda: client.runs.list(statuses=["done"]),
        lambda: client.runs.list(flow_kind="fly"),
        lambda: client.definitions.list("pipelines"),
        lambda: client.lineage.state(ID, "fly"),
    ]
    for word in words:
        with pytest.raises(ValueError, match="must be one of") as caught:
            await word()
        assert not isinstance(caught.value, OptaicError)


async def test_an_empty_list_for_an_existing_resource_is_no_error(
    desk: FakeServices, client: AsyncClient
) -> None:
    desk.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    assert await client.instances.list(project=OTHER, definition=ID) == []
    assert await client.status.list(project=OTHER) == []
    assert await client.runs.list(PRICES) == []
