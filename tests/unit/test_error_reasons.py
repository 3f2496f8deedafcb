"""Every reason that the code gives is a value of the contract that its callers read."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optaic.common.v1 import error_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.instance.v1 import instance_service_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import run_service_pb2
from optaic.status.v1 import status_service_pb2
from servicekit import errors

ROOT = Path(__file__).parents[2]
COMMON = error_pb2.ErrorReason
PACKAGES: dict[str, list[Any]] = {
    "shared/servicekit": [COMMON],
    "services/instance_service": [
        COMMON,
        definition_service_pb2.ErrorReason,
        instance_service_pb2.ErrorReason,
    ],
    "services/run_service": [COMMON, run_service_pb2.ErrorReason],
    "services/lineage_service": [COMMON, lineage_service_pb2.ErrorReason],
    "services/status_service": [COMMON, status_service_pb2.ErrorReason],
}
RAISED = {kind.__name__ for kind in errors.DomainError.__subclasses__()}


def reasons(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the literal first argument of every typed error, also as `(kind, reason, message)`, and where it stands."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name: ast.expr
            if isinstance(node, ast.Call):
                name, arguments = node.func, node.args
            elif isinstance(node, ast.Tuple) and len(node.elts) > 1:
                name, arguments = node.elts[0], node.elts[1:]
            else:
                continue
            if not (isinstance(name, ast.Name) and name.id in RAISED and arguments):
                continue
            reason = arguments[0]
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                yield f"{path.name}:{node.lineno}", reason.value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_reason_is_in_the_contract(package: str) -> None:
    known = {name.removeprefix("ERROR_REASON_") for enum in PACKAGES[package] for name in enum.keys()}  # noqa: SIM118 - an enum wrapper is no mapping
    found = list(reasons(ROOT / package))
    assert found
    assert [f"{where} {reason}" for where, reason in found if reason not in known] == []
