"""servicekit knows no service, no public package and no resource."""

import ast
from pathlib import Path

import pytest

import servicekit

FOLDER = Path(servicekit.__file__).parent
FORBIDDEN = {"optaic", "prefect", "mlflow", "evidently", "devstack", "worker"}
NATS_USERS = {"broker.py", "consumer.py", "dead_letters.py", "durables.py", "pull.py", "tenant_streams.py"}


def imports_of(file: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_servicekit_modules_import_only_allowed_modules(file: Path) -> None:
    imports = imports_of(file)
    assert not imports & FORBIDDEN
    assert not [name for name in imports if name.endswith("_service")]
    assert "nats" not in imports or file.name in NATS_USERS
    assert file.name != "errors.py" or imports <= {"__future__", "collections", "dataclasses", "typing"}
