"""What servicekit has one function for is not written by hand again in a program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    file
    for folder in ("services", "shared/servicekit", "deploy", "demo")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "_pb2" not in file.name
]
_PREFIX = re.compile(r"[A-Z][A-Z_]*_|UNSPECIFIED")
_NO_ENUMS_OF_OURS = {"code_pb2.Code", "struct_pb2"}


def calls(file: Path) -> Iterator[tuple[ast.Attribute, ast.Call]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func, node


def is_conversion(function: ast.Attribute, call: ast.Call) -> bool:
    if function.attr in {"Name", "Value"}:
        return ast.unparse(function.value) not in _NO_ENUMS_OF_OURS
    texts = [each.value for each in call.args if isinstance(each, ast.Constant)]
    is_prefix = any(isinstance(text, str) and _PREFIX.fullmatch(text) for text in texts)
    return function.attr in {"removeprefix", "removesuffix"} and is_prefix


def test_enums_are_converted_by_servicekit_enums_only() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {ast.unparse(call)}"
        for file in FILES
        for function, call in calls(file)
        if is_conversion(function, call)
    ]
    assert not found


def test_conversions_are_recognised() -> None:
    for text, expected in (
        ("flow_pb2.FlowKind.Name(kind)", True),
        ('Status.Value(f"STATUS_{word}")', True),
        ('name.removeprefix("FLOW_KIND_")', True),
        ("code_pb2.Code.Value(error.code)", False),
        ('line.removeprefix("gitdir:")', False),
    ):
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        assert is_conversion(call.func, call) is expected
