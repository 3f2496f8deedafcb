"""Packages register code by entry points and manifests, and by nothing else."""

import json
import sys
from pathlib import Path

import pytest

from optaic.plugins.registry import list_entry_points, list_registered_code
from support.plugin_packages import register_code

READ = list_registered_code.__wrapped__  # as a process does that has just started
MANIFEST = {
    "name": "ramp",
    "kind": "DEFINITION_KIND_PIPELINE",
    "definitionVersion": {"codeRef": "acme.one:Ramp"},
}


def write_manifests(site: Path, **texts: str) -> None:
    """Write a package with manifests; its code must not run."""
    (site / "acme_shipped").mkdir()
    (site / "acme_shipped" / "__init__.py").write_text("raise SystemExit('imported')")
    for name, text in texts.items():
        (site / "acme_shipped" / f"{name}.json").write_text(text)


def test_built_in_code_is_registered_as_that_of_any_package() -> None:
    assert {entry.name for entry in list_entry_points()} >= {"builtin"}
    assert "worker.builtin.delta_store:DeltaStore" in READ()


def test_a_class_is_registered_by_its_entry_point_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = READ()
    monkeypatch.syspath_prepend(
        str(register_code(tmp_path, "acme.one:Ramp", "acme.two:Gap [extra]", "os:path.join"))
    )
    assert READ() - before == {"acme.one:Ramp"}


def test_the_code_of_manifests_is_registered_and_damaged_ones_register_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = READ()
    macro = {"name": "M", "kind": "DEFINITION_KIND_OP_MACRO", "definition_version": {"version": "1.0.0"}}
    write_manifests(
        tmp_path,
        several=json.dumps([macro, {**MANIFEST, "definitionVersion": {"codeRef": "acme.two:Gap"}}]),
        one=json.dumps(MANIFEST),
        broken="{",
        odd=json.dumps({"code_ref": "acme.three:No", "odd": 1}),
    )
    (tmp_path / "other.json").write_text(
        json.dumps({**MANIFEST, "definitionVersion": {"codeRef": "acme.four:No"}})
    )
    monkeypatch.syspath_prepend(str(register_code(tmp_path, "acme_shipped")))
    assert READ() - before == {"acme.one:Ramp", "acme.two:Gap"}
    assert "acme_shipped" not in sys.modules


def test_a_package_that_appears_later_registers_nothing_in_a_process_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list_registered_code()
    register_code(tmp_path, "acme.one:Ramp")
    assert list_registered_code() == before
    assert READ() - before == {"acme.one:Ramp"}


def test_a_package_hidden_by_another_of_its_name_registers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = READ()
    for folder, code in (("later", "acme.two:Hidden"), ("first", "acme.one:Ramp")):
        monkeypatch.syspath_prepend(str(register_code(tmp_path / folder, code)))
    assert READ() - before == {"acme.one:Ramp"}
