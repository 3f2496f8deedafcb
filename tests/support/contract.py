"""The comments of the contracts, by the full name of what they stand above."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # numbers of fields in descriptor.proto
_FIELD, _NESTED, _NESTED_ENUM, _VALUE, _METHOD = 2, 3, 4, 2, 2

_Named = Iterator[tuple[tuple[int, ...], str]]


@functools.cache
def comments() -> Mapping[str, str]:
    """Return every comment as one line, for example of `optaic.instance.v1.BacktestConfig.top_n`."""
    found: dict[str, str] = {}
    for file in _compile().file:
        names = dict(_file_names(file))
        for place in file.source_code_info.location:
            if (path := tuple(place.path)) in names and place.leading_comments:
                found[f"{file.package}.{names[path]}"] = " ".join(place.leading_comments.split())
    return found


def numbers_in(text: str) -> list[float]:
    """Return the numbers that a text states: `1,000` is one thousand."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def words_in(text: str) -> list[str]:
    """Return what a text has in backticks."""
    return re.findall(r"`([^`]+)`", text)


def page(name: str) -> str:
    """Return a page of docs/ as one line, however its lines are broken."""
    return " ".join((ROOT / "docs" / name).read_text().split())


def _compile() -> descriptor_pb2.FileDescriptorSet:
    protos = ROOT / "protos"
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "contracts.binpb")
        places = [f"-I{each}" for each in (protos, ROOT / "third_party" / "protovalidate", builtin)]
        arguments = ["protoc", *places, "--include_source_info", f"--descriptor_set_out={target}", *files]
        assert protoc.main(arguments) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())


def _file_names(file: descriptor_pb2.FileDescriptorProto) -> _Named:
    for index, message in enumerate(file.message_type):
        yield from _message_names(message, (_MESSAGE, index), "")
    yield from _enum_names(file.enum_type, (_ENUM,), "")
    for index, service in enumerate(file.service):
        yield (_SERVICE, index), service.name
        for position, method in enumerate(service.method):
            yield (_SERVICE, index, _METHOD, position), f"{service.name}.{method.name}"


def _message_names(message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], prefix: str) -> _Named:
    name = f"{prefix}{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELD, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message_names(nested, (*path, _NESTED, index), f"{name}.")
    yield from _enum_names(message.enum_type, (*path, _NESTED_ENUM), f"{name}.")


def _enum_names(enums: Any, path: tuple[int, ...], prefix: str) -> _Named:
    for index, enum in enumerate(enums):
        yield (*path, index), f"{prefix}{enum.name}"
        for position, value in enumerate(enum.value):
            yield (*path, index, _VALUE, position), f"{prefix}{enum.name}.{value.name}"
