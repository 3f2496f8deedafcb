"""The names of columns stand in one place: contract, manifests, pages and code agree on them."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE, value_column
from support.contract import ROOT, comments, page, words_in

RULES = Path("shared/optaic/rules/columns.py")
# Here the word is a format of JSON Schema or the name of a type.
FORMATS = {
    Path("services/gateway/openapi.py"),
    Path("shared/optaic/tables/delta.py"),
    Path("services/instance_service/domain/formats.py"),
    Path("services/worker/builtin/digest.py"),
    Path("services/worker/builtin/language.py"),
    Path("services/worker/builtin/typed/kinds.py"),
    Path("services/worker/output_schema.py"),
}
MANIFESTS = sorted((ROOT / "services/instance_service/builtin").glob("*.json"))


def sources() -> list[Path]:
    found = [path for folder in ("shared", "services") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if "_pb2" not in path.name)


def texts(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def test_no_other_module_writes_the_names_of_the_keys() -> None:
    files = [file for file in sources() if file != RULES]
    assert files
    found = [
        f"{file}:{line}"
        for file in files
        for text, line in texts(file)
        if text == ENTITY or (text == DATE and file not in FORMATS)
    ]
    assert not found


def properties(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        for inner in value.values():
            yield from properties(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from properties(inner)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_the_defaults_of_manifests_name_these_columns(manifest: Path) -> None:
    for name, schema in properties(json.loads(manifest.read_text())):
        if isinstance(schema, dict) and name == "keys" and "default" in schema:
            assert schema["default"] == [*KEYS]
        if isinstance(schema, dict) and name == "dates" and "default" in schema:
            assert schema["default"] == [DATE]
        if isinstance(schema, dict) and name == "output" and "default" in schema:
            assert schema["default"] == VALUE


def test_contract_and_pages_state_these_columns() -> None:
    assert words_in(comments()["optaic.instance.v1.SignalContract.index_columns"]) == [*KEYS]
    (row,) = [
        line
        for line in (ROOT / "docs/definitions.md").read_text().splitlines()
        if "| `signal_bounds`" in line
    ]
    assert VALUE in words_in(row)
    assert f"(`{VALUE}`)" in page("instances.md")
    assert f"`{DATE}`" in page("refreshes.md")


@pytest.mark.parametrize(("output", "column"), [("score", "score"), ("", VALUE), (None, VALUE), (3, VALUE)])
def test_the_value_column_has_the_configured_name(output: object, column: str) -> None:
    assert value_column(output) == column
