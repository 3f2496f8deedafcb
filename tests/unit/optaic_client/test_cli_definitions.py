"""Definitions on the command line, one by one and by file."""

import json
import uuid
from pathlib import Path

import grpc
import pytest

from optaic.cli.documents import read_yaml
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse

DEFINITION = definition_pb2.Definition(
    definition_id=ID,
    name="smooth",
    kind=definition_pb2.DEFINITION_KIND_PIPELINE,
    newest_version=definition_pb2.DefinitionVersion(version="1.1.0"),
)


def test_definitions_are_listed_and_shown(optaic: FakeServices) -> None:
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[DEFINITION]))
    optaic.on("GetDefinition", DEFINITION)
    version = definition_pb2.DefinitionVersion(
        version="1.1.0", state=definition_pb2.DEFINITION_STATE_DEPRECATED
    )
    optaic.on(
        "ListDefinitionVersions",
        definition_service_pb2.ListDefinitionVersionsResponse(definition_versions=[version]),
    )
    table = invoke("definition", "list", "--kind", "pipeline").stdout
    assert "smooth" in table
    assert "1.1.0" in table
    for given in (("smooth",), (ID,), ("smooth", "--kind", "pipeline")):
        assert "DEPRECATED" in invoke("definition", "get", *given).stdout
    assert json.loads(invoke("definition", "get", ID, "-o", "json").stdout)["name"] == "smooth"
    assert (
        "no definition named 'rough'; existing names: smooth"
        in invoke("definition", "get", "rough", status=3).stderr
    )


def test_publishing_a_definition_from_a_file_reports_what_it_breaks(
    optaic: FakeServices, tmp_path: Path
) -> None:
    report = definition_pb2.PublicationReport(
        previous_version="1.0.0",
        compatibility=definition_pb2.COMPATIBILITY_BREAKING,
        schema_changes=[definition_pb2.SchemaChange(path="/parameters_schema/required", description="more")],
        tracking_instances=[definition_pb2.TrackingInstance(name="prices", violations=["n is required"])],
        tracking_instance_count=2,
    )
    optaic.on("PublishDefinition", definition_pb2.DefinitionVersion(publication_report=report))
    file = tmp_path / "smooth.yaml"
    file.write_text("name: smooth\nkind: pipeline\ndefinition_version: {version: 1.1.0}\n")
    tried = invoke("definition", "publish", "-f", str(file), "--draft", "--dry-run")
    assert "dry run: nothing was changed" in tried.stderr
    shown = tried.stdout
    assert "breaking  with version 1.0.0" in shown
    assert "/parameters_schema/required  more" in shown
    assert "tracks the newest version: prices  n is required" in shown
    assert "and 1 more" in shown
    request = optaic.calls("PublishDefinition")[0].request
    assert (request.name, request.definition_version.version) == ("smooth", "1.1.0")
    assert (request.draft, request.validate_only) == (True, True)
    file.write_text("name: smooth\nkind: pipeline\ndefinition_version: {version: 1.1.0}\ndraft: true\n")
    assert "draft" in invoke("definition", "publish", "-f", str(file), status=2).stderr


@pytest.mark.parametrize("step", ["activate", "deprecate", "retire"])
def test_a_version_of_a_definition_takes_its_steps(optaic: FakeServices, step: str) -> None:
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[DEFINITION]))
    versions = [
        definition_pb2.DefinitionVersion(
            definition_version_id=str(uuid.UUID(int=number)),
            definition_name="smooth",
            version=f"1.{number}.0",
        )
        for number in (2, 1)
    ]
    answer = definition_service_pb2.ListDefinitionVersionsResponse(definition_versions=versions)
    optaic.on("ListDefinitionVersions", answer)
    method = f"{step.capitalize()}DefinitionVersion"
    optaic.on(method, versions[1])
    tried = invoke("definition", step, "smooth", "1.1.0", "--reason", "so", "--dry-run")
    assert "smooth  1.1.0" in tried.stdout
    assert tried.stderr == "dry run: nothing was changed\n"
    request = optaic.calls(method)[0].request
    assert request.definition_version_id == versions[1].definition_version_id
    assert (request.reason, request.validate_only) == ("so", True)
    assert "1.2.0, 1.1.0" in invoke("definition", step, "smooth", "9", status=3).stderr


def test_a_file_is_compared_and_its_mistakes_are_reported_with_their_paths(
    optaic: FakeServices, tmp_path: Path
) -> None:
    project = instance_pb2.Project(project_id=ID, name="desk")
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[project]))
    pipeline = definition_pb2.Definition(name="file", kind=definition_pb2.DEFINITION_KIND_PIPELINE)
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[pipeline]))
    optaic.on("ListInstances", instance_service_pb2.ListInstancesResponse())

    verdict = instance_service_pb2.ChangeVerdict()
    verdict.conditions.add(type="DefinitionDeprecated", message="version 1.0.0 of file is deprecated")
    verdict.conditions.add(type="PrefectDeploymentReady", message="no news")
    optaic.on("RehearseChanges", instance_service_pb2.RehearseChangesResponse(verdicts=[verdict]))
    file = tmp_path / "desk.yaml"
    content = "{name: raw, dataset: {pipeline: {definition_name: file}}}"
    file.write_text(f"project: desk\nmanager: me\ninstances: [{content}]\n")
    (action,) = json.loads(invoke("diff", "-f", str(file), "-o", "json", status=1).stdout)
    assert (action["verb"], action["name"], action["path"]) == ("create", "raw", "documents[0].instances[0]")
    checked = invoke("apply", "-f", str(file), "--dry-run")
    assert "create" in checked.stdout
    assert checked.stderr.splitlines() == [
        "warning: raw: version 1.0.0 of file is deprecated",
        "dry run: nothing was changed",
    ]
    assert not optaic.calls("CreateInstance")
    (change,) = optaic.calls("RehearseChanges")[0].request.changes
    assert change.create_instance.instance.labels["optaic/manager"] == "me"
    assert invoke("export", "--definitions", "none").stdout == ""
    file.write_text(f"project: desk\nmanager: me\ninstances: [{content.replace('file', 'fiel')}]\n")
    refused = invoke("apply", "-f", str(file), status=1).stderr
    assert "documents[0].instances[0].dataset.pipeline.definition_name" in refused
    invoke("diff", "-f", str(file), status=2)
    file.write_text("project: desk\nmanager: me\ninstances: []\n")
    assert invoke("diff", "-f", str(file)).stdout == "nothing to do\n"
    file.write_text("project: desk\nproject: lab\n")
    assert "the key 'project' is used twice" in invoke("diff", "-f", str(file), status=2).stderr


def test_completed_steps_are_shown_if_the_next_is_refused(optaic: FakeServices, tmp_path: Path) -> None:
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse())
    verdicts = [instance_service_pb2.ChangeVerdict() for _ in range(2)]
    optaic.on("RehearseChanges", instance_service_pb2.RehearseChangesResponse(verdicts=verdicts))
    optaic.on("CreateProject", instance_pb2.Project(project_id=ID, name="desk"))
    pipeline = definition_pb2.Definition(name="file", kind=definition_pb2.DEFINITION_KIND_PIPELINE)
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[pipeline]))
    code = grpc.StatusCode.INVALID_ARGUMENT
    optaic.on("CreateInstance", lambda _, context: refuse(context, code, "INVALID_SPEC", "no", []))
    file = tmp_path / "desk.yaml"
    file.write_text(
        "{project: desk, manager: me, instances: [{name: raw, dataset: {pipeline: {definition_name: file}}}]}"
    )
    result = invoke("apply", "-f", str(file), "-o", "json", status=1)
    assert [each["name"] for each in json.loads(result.stdout)] == ["desk"]
    assert "instance raw (documents[0].instances[0]): no" in result.stderr


def test_maps_that_are_merged_may_replace_keys_and_are_merged_again(tmp_path: Path) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text("base: &base {x: 0, y: 0}\na: &a {<<: *base, x: 1}\nb: {<<: *a, y: 2}\nc: {d: *a}\n")
    (found,) = read_yaml(file).values
    assert (found["a"], found["b"]) == ({"x": 1, "y": 0}, {"x": 1, "y": 2})
    assert found["c"] == {"d": found["a"]}
    for text in ("a: {x: 1, x: 2}", "a: [{<<: {x: 1}, y: 1, y: 2}]", "a: 1\nb: 1\na: 1"):
        file.write_text(text)
        with pytest.raises(ValueError, match="is used twice"):
            read_yaml(file)


def test_an_export_reports_what_a_file_cannot_contain(optaic: FakeServices) -> None:
    project = instance_pb2.Project(project_id=ID, name="desk")
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[project]))
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse())
    paused = instance_pb2.INSTANCE_STATE_PAUSED
    instances = [
        instance_pb2.Instance(project_id=ID, instance_id="1", name="halted", state=paused),
        instance_pb2.Instance(project_id=ID, instance_id="2", name="running"),
    ]
    optaic.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=instances))
    result = invoke("export")
    assert "halted" in result.stdout
    assert result.stderr.startswith("warning: desk/halted is paused")
    assert "running" not in result.stderr


def test_changed_code_is_accepted_and_the_record_shown(optaic: FakeServices) -> None:
    version = definition_pb2.DefinitionVersion(version="1.1.0", definition_version_id=ID)
    versions = definition_service_pb2.ListDefinitionVersionsResponse(definition_versions=[version])
    optaic.on("GetDefinition", DEFINITION)
    optaic.on("ListDefinitionVersions", versions)
    kept = run_service_pb2.CodeHash(
        definition_version_id=ID,
        definition_name="smooth",
        definition_version="1.1.0",
        number=1,
        hash="a" * 64,
    )
    kept.run_id = "the-first-run"
    accepted = run_service_pb2.CodeHash(number=2, hash="b" * 64, reason="only comments", actor="ann")
    optaic.on("AcceptCode", accepted)
    optaic.on("ListCodeHashes", run_service_pb2.ListCodeHashesResponse(code_hashes=[accepted, kept]))
    options = ("--hash", "b" * 64, "--reason", "only comments")
    tried = invoke("code", "accept", ID, "1.1.0", *options, "--dry-run")
    assert "b" * 64 in tried.stdout
    assert tried.stderr == "dry run: nothing was changed\n"
    (call,) = optaic.calls("AcceptCode")
    given = call.request
    assert (given.definition_version_id, given.hash, given.reason) == (ID, "b" * 64, "only comments")
    assert given.validate_only
    table = invoke("code", "list", ID, "1.1.0").stdout
    assert "only comments" in table
    assert "first run, the-first-run" in table
    assert json.loads(invoke("code", "list", "-o", "json").stdout)[0]["number"] == "2"
    listed = [each.request.definition_version_id for each in optaic.calls("ListCodeHashes")]
    assert listed == [ID, ""]
    assert "--reason" in invoke("code", "accept", ID, "1.1.0", "--hash", "b" * 64, status=2).stderr


def test_changes_of_a_file_are_shown_without_secrets(optaic: FakeServices, tmp_path: Path) -> None:
    canary = "k4n4rie-Zx81"
    project = instance_pb2.Project(project_id=ID, name="desk")
    optaic.on("ListProjects", instance_service_pb2.ListProjectsResponse(projects=[project]))
    pipeline = definition_pb2.Definition(name="vendor", kind=definition_pb2.DEFINITION_KIND_PIPELINE)
    optaic.on("ListDefinitions", definition_service_pb2.ListDefinitionsResponse(definitions=[pipeline]))
    there = instance_pb2.Instance(instance_id=ID, project_id=ID, name="raw", etag="e")
    there.labels["optaic/manager"] = "me"
    there.dataset.pipeline.definition_name = "vendor"
    there.dataset.pipeline.config.update(
        {"pin": 1, "password": canary, "source": f"ftp://me:{canary}@a.example"}
    )
    optaic.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[there]))
    verdict = instance_service_pb2.ChangeVerdict()
    optaic.on("RehearseChanges", instance_service_pb2.RehearseChangesResponse(verdicts=[verdict]))
    file = tmp_path / "desk.yaml"
    config = f"{{pin: 2, password: more {canary}, source: 'ftp://me:{canary}@b.example'}}"
    content = f"{{name: raw, dataset: {{pipeline: {{definition_name: vendor, config: {config}}}}}}}"
    file.write_text(f"project: desk\nmanager: me\ninstances: [{content}]\n")
    for output in ("table", "json"):
        result = invoke("diff", "-f", str(file), "-o", output, status=1)
        assert "ftp://me:***@b.example" in result.stdout
        assert canary not in result.stdout + result.stderr


def test_a_mistake_in_a_file_is_shown_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "desk.yaml"
    file.write_text("project: !!int 'ftp://me:k4n4rie@files.example'\n")
    refused = invoke("apply", "-f", str(file), status=2).stderr
    assert "ftp://me:***@files.example" in refused
