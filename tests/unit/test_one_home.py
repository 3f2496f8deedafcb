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


def is_doubling(call: ast.Call) -> bool:
    """Whether it is `min` of something that doubles."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "min"):
        return False
    return any(
        isinstance(node, ast.BinOp) and _doubles(node)
        for argument in call.args
        for node in ast.walk(argument)
    )


def _doubles(node: ast.BinOp) -> bool:
    sides = [each.value for each in (node.left, node.right) if isinstance(each, ast.Constant)]
    if isinstance(node.op, ast.Mult):
        return 2 in sides
    base = node.left.value if isinstance(node.left, ast.Constant) else None
    return isinstance(node.op, ast.Pow | ast.LShift) and base in {1, 2}


def test_waits_are_computed_by_servicekit_backoff_only() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {ast.unparse(node)}"
        for file in FILES
        if file.name != "backoff.py" and not file.is_relative_to(ROOT / "deploy")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and is_doubling(node)
    ]
    assert not found


def test_handwritten_exponential_backoff_is_recognised() -> None:
    for text, expected in (
        ("min(longest, first * 2 ** attempts)", True),
        ("min(first * (1 << attempts), longest)", True),
        ("min(2 * pause, longest)", True),
        ("min(longest, wait)", False),
        ("max(2 * pause, longest)", False),
    ):
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert is_doubling(call) is expected
