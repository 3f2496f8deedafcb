"""Packages that ship definitions: what is good is published, what is bad is logged and harms nobody."""

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from instance_service.resources.definitions import content
from instance_service.use_cases.definitions import plugins, publication
from instance_service.use_cases.definitions.plugins import publish_plugins
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.definition.v1.definition_service_pb2 import ListDefinitionsRequest
from support.command_line import invoke
from support.instance_service import RunningInstanceService, derived, refusal
from support.plugin_packages import EXAMPLE, install_package

_GOOD: dict[str, Any] = {
    "name": "foreign_good",
    "kind": "DEFINITION_KIND_PIPELINE",
    "definition_version": {"version": "1.0.0", "code_ref": "foreign.code:Any"},
}
_BAD = {**_GOOD["definition_version"], "parameters_schema": {"type": "odd"}}


class Site:
    """A folder of installed packages on Python's path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(
        self,
        name: str,
        manifests: dict[str, bytes],
        *,
        code: str = "",
        value: str = "",
        entry_points: bytes = b"",
    ) -> None:
        """Add a package with manifests, an entry point, and code that runs when it is imported."""
        package = self._folder / name / "definitions"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").write_text(code)
        for file, text in manifests.items():
            (package / file).write_bytes(text)
        metadata = self._folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        given = entry_points or f"[optaic.definitions]\n{name} = {value or f'{name}.definitions'}\n".encode()
        (metadata / "entry_points.txt").write_bytes(given)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


async def _publish(service: RunningInstanceService) -> tuple[list[str], list[dict[str, Any]]]:
    """Publish what is installed now; return the foreign definitions, and what was logged as an error."""
    with structlog.testing.capture_logs() as logs:
        await publish_plugins(service.app.deps, ("default",))
    listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(name_prefix="foreign"))
    return [item.name for item in listed.definitions], [
        dict(each) for each in logs if each["log_level"] == "error"
    ]


async def test_no_code_of_a_package_is_run(service: RunningInstanceService, site: Site) -> None:
    site.install("careless", {"a.json": json.dumps(_GOOD).encode()}, code="raise SystemExit('imported')")
    assert await _publish(service) == (["foreign_good"], [])


@pytest.mark.parametrize(
    ("manifests", "more", "event"),
    [
        ({}, {}, "package without definitions"),
        ({"a.json": b"{"}, {}, "manifest refused"),
        ({"a.json": b"\xff\xfe"}, {}, "manifest refused"),
        ({"a.json": b'{"odd": 1}'}, {}, "manifest refused"),
        ({"a.json": b"[1]"}, {}, "manifest refused"),
        ({"a.json": b"[" * 100_000}, {}, "manifest refused"),
        ({"a.json": json.dumps({**_GOOD, "name": "not a name"}).encode()}, {}, "manifest refused"),
        (
            {"a.json": json.dumps({**_GOOD, "name": "foreign_bad", "definition_version": _BAD}).encode()},
            {},
            "definition refused",
        ),
        ({"a.json": b"{}"}, {"value": "no.such.package"}, "package without definitions"),
        ({"a.json": b"{}"}, {"entry_points": b"[optaic.definitions]\na = \xff\n"}, "damaged package"),
    ],
)
async def test_a_bad_package_is_logged_and_skipped(
    service: RunningInstanceService, site: Site, manifests: dict[str, bytes], more: dict[str, Any], event: str
) -> None:
    site.install("bad", manifests, **more)
    site.install("good", {"a.json": json.dumps(_GOOD).encode()})
    names, errors = await _publish(service)
    assert names == ["foreign_good"]
    assert [error["event"] for error in errors] == [event], errors


async def test_an_entry_point_that_names_a_class_publishes_nothing(
    service: RunningInstanceService, site: Site
) -> None:
    site.install("classes", {"a.json": b"{}"}, value="classes.code:Any", code="raise SystemExit('imported')")
    assert await _publish(service) == ([], [])


async def test_an_internal_fault_does_not_prevent_the_start(
    service: RunningInstanceService, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(*given: Any, **fields: Any) -> DefinitionVersion:
        if given[-1].name == "foreign_odd":
            raise TypeError("unhashable")
        return await publication.publish_definition(*given, **fields)

    monkeypatch.setattr(plugins, "publish_definition", publish)
    site.install("odd", {"a.json": json.dumps([{**_GOOD, "name": "foreign_odd"}, _GOOD]).encode()})
    names, errors = await _publish(service)
    assert names == ["foreign_good"]
    assert [error["error"] for error in errors] == ["TypeError('unhashable')"]


async def test_publishing_plugins_at_start_does_not_check_tracking_instances(
    service: RunningInstanceService, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "report", None)  # nobody reads it
    site.install("good", {"a.json": json.dumps(_GOOD).encode()})
    assert await _publish(service) == (["foreign_good"], [])


async def test_published_versions_are_not_checked_again_at_the_start(
    service: RunningInstanceService, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("good", {"a.json": json.dumps(_GOOD).encode()})
    assert await _publish(service) == (["foreign_good"], [])
    monkeypatch.setattr(content, "content_violations", None)  # to call it would be refused
    known = set(service.app.deps.built_in)
    service.app.deps.built_in.clear()
    assert await _publish(service) == (["foreign_good"], [])
    assert service.app.deps.built_in == known != set()


async def test_the_example_package_is_found_where_it_is_installed(
    service: RunningInstanceService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install_package(EXAMPLE, tmp_path / "packages")))
    await publish_plugins(service.app.deps, ("default",))
    listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(name_prefix="acme"))
    (version,) = [item.newest_version for item in listed.definitions]
    assert (version.definition_name, version.code_ref) == ("acme_ramp", "acme_research.pipelines:Ramp")
    # Its operator can be called by name.
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    given = derived(project_id, "derived", prices.instance_id)
    given["dataset"]["pipeline"]["config"]["expression"] = "RANK(acme_gap(close, 5))"
    created = await service.create(given)
    assert list(created.dataset.pipeline.macro_version_ids) == ["ACME_GAP"]
    given["dataset"]["pipeline"]["config"]["expression"] = "ACME_GAP(close, 0)"
    refused = await refusal(service.create({**given, "name": "other"}))
    assert "between 1 and 1000" in refused.fields["instance.dataset.pipeline.config.expression"]


async def test_a_package_of_optaic_init_is_accepted(
    service: RunningInstanceService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("init", str(tmp_path / "acme-walk"))
    monkeypatch.syspath_prepend(str(install_package(tmp_path / "acme-walk", tmp_path / "packages")))
    await publish_plugins(service.app.deps, ("default",))
    listed = await service.definitions.ListDefinitions(ListDefinitionsRequest(name_prefix="acme_walk"))
    (version,) = [item.newest_version for item in listed.definitions]
    assert (version.definition_name, version.code_ref) == ("acme_walk_walk", "acme_walk.pipelines:Walk")
