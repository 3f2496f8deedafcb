"""The rules that all share rest on the standard library and the contracts alone, so that all may read them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optaic import rules

FOLDER = Path(rules.__file__).parent
CONTRACTS = ("google.protobuf", "buf.validate", "optaic.rules")


def imports_of(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""


def is_contract(module: str) -> bool:
    parts = module.split(".")
    return module.startswith(CONTRACTS) or (parts[0] == "optaic" and parts[2:3] == ["v1"])


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_rules_import_the_standard_library_and_the_contracts_alone(file: Path) -> None:
    others = [
        module
        for module in imports_of(file)
        if module.partition(".")[0] not in sys.stdlib_module_names and not is_contract(module)
    ]
    assert not others


def test_rules_load_without_the_client_and_without_data_libraries() -> None:
    modules = [f"optaic.rules.{file.stem}" for file in FOLDER.glob("*.py") if file.stem != "__init__"]
    program = (
        f"import sys, {', '.join(modules)}\n"
        "print(*sorted({'grpc', 'polars', 'numpy', 'sqlalchemy', 'optaic.client'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
