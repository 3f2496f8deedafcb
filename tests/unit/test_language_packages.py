"""What the contracts are called in other languages, so that plain protoc can generate them."""

import importlib
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"
FILES = sorted(str(path.relative_to(PROTOS).with_suffix("")) for path in PROTOS.rglob("optaic/**/*.proto"))


@pytest.mark.parametrize("name", FILES)
def test_a_contract_declares_its_package_in_go_java_and_c_sharp(name: str) -> None:
    file = importlib.import_module(f"{name.replace('/', '.')}_pb2").DESCRIPTOR
    options, words = file.GetOptions(), file.package.split(".")
    assert options.go_package.split(";")[0] == f"optaic.dev/go/{'/'.join(words)}"
    assert options.java_package == f"dev.{file.package}"
    assert options.java_multiple_files
    assert options.csharp_namespace == ".".join(word.capitalize() for word in words)


def test_the_rules_of_fields_are_generated_by_their_owner_alone() -> None:
    assert not list(PROTOS.rglob("validate.proto"))
