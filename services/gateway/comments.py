"""The comments of the contracts: taken from the protos by `make proto`, because descriptors at run time have none.

`python -m gateway.comments <descriptor set> <file>` writes the file. It must run before the stubs exist, so this module
imports none of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

Place = tuple[int, ...]
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6  # the fields of a file, as places of comments number them
_FIELDS, _NESTED, _ENUMS_WITHIN = 2, 3, 4  # the fields of a message
_VALUES, _METHODS = 2, 2  # of an enumeration, and of a service
_ARGUMENTS = 3


def read(file: Path) -> Mapping[str, str]:
    """Return the comment of each service, method, message, field, enumeration and value that has one, by its full name."""
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write(contracts: FileDescriptorSet, file: Path) -> None:
    """Write the comments of all files, one a line, so that changes of different contracts merge."""
    comments = {name: text for each in contracts.file for name, text in _comments_of(each)}
    file.write_text(
        json.dumps(comments, indent=0, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {
        tuple(each.path): " ".join(line.strip() for line in each.leading_comments.splitlines()).strip()
        for each in file.source_code_info.location
    }
    for name, place in _places(file):
        if text := texts.get(place):
            yield name, text


def _places(file: FileDescriptorProto) -> Iterator[tuple[str, Place]]:
    yield from _places_of_messages(file.package, (_MESSAGES,), file.message_type)
    yield from _places_of_parts(file.package, (_ENUMS,), _VALUES, file.enum_type)
    yield from _places_of_parts(file.package, (_SERVICES,), _METHODS, file.service)


def _places_of_messages(
    scope: str, place: Place, messages: Sequence[DescriptorProto]
) -> Iterator[tuple[str, Place]]:
    for index, message in enumerate(messages):
        name, here = f"{scope}.{message.name}", (*place, index)
        yield name, here
        yield from ((f"{name}.{field.name}", (*here, _FIELDS, at)) for at, field in enumerate(message.field))
        yield from _places_of_messages(name, (*here, _NESTED), message.nested_type)
        yield from _places_of_parts(name, (*here, _ENUMS_WITHIN), _VALUES, message.enum_type)


def _places_of_parts(
    scope: str, place: Place, part: int, holders: Sequence[EnumDescriptorProto | ServiceDescriptorProto]
) -> Iterator[tuple[str, Place]]:
    """Return the places of enumerations with their values, or of services with their methods."""
    for index, holder in enumerate(holders):
        name, here = f"{scope}.{holder.name}", (*place, index)
        yield name, here
        parts: Sequence[EnumValueDescriptorProto | MethodDescriptorProto] = (
            holder.value if isinstance(holder, EnumDescriptorProto) else holder.method
        )
        yield from ((f"{name}.{each.name}", (*here, part, at)) for at, each in enumerate(parts))


if __name__ == "__main__":
    if len(sys.argv) != _ARGUMENTS:
        sys.exit("usage: python -m gateway.comments <descriptor set> <file>")
    write(FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
