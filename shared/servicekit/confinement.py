"""Keep a confined caller's requests and answers within its projects; it decides by what it is told, and reads nothing.

An id that the caller may not read becomes, before the method sees it, an id that nothing has. So the answer is that of a
missing id, whatever the method and the field. In answers, whatever is in a project that the caller may not read is hidden.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from servicekit.errors import DomainError, FieldViolation, PreconditionViolation
from servicekit.ids import is_id, new_id

# The fields of contracts that name something that belongs to a project, or a project itself.
_ASSUMED = "assumed_id"  # the id that a request within a request gives to what it creates
PROJECT_BOUND = frozenset(
    {_ASSUMED, "instance_id", "instance_ids", "membership_id", "project_id", "resource_id", "run_id"}
)
_READ = frozenset({"membership_id", "primary", "secondary", "universe"})  # what a backtest reads
_BOUND = PROJECT_BOUND | _READ
# What a hidden message still tells.
_TOLD = "status"
_HIDDEN = "hidden"
_FLOW = "optaic.common.v1.FlowRef"
_IDS = ("instance_id", "resource_id")
_TEXTS = frozenset({"message", "reason"})
_NAMESPACE = uuid.UUID("6f0e6c0e-3f0c-5b7e-9d55-0a6f2f7f4f51")


@dataclass(frozen=True)
class InnerRequest:
    """A request of another method, which a request lists."""

    index: int
    path: str
    assumed_id: str
    message: Message


def inner_requests(message: Message) -> Iterator[InnerRequest]:
    """Yield the requests of other methods that a request lists; each item of the list has one of them."""
    counts = defaultdict[str, int](int)
    for field, item in _items(message):
        index = counts[field.name]
        counts[field.name] += 1
        for inner, request in item.ListFields():
            if inner.message_type is not None:
                path = f"{field.name}[{index}].{inner.name}"
                yield InnerRequest(index, path, getattr(item, _ASSUMED, "").lower(), request)


def ids_of(message: Message, depth: int = 1) -> Iterator[tuple[str, int]]:
    """Yield each id that a field bound to a project has, in lower case, with the depth of the field."""
    for _, value in _fields_named(message, _BOUND):
        for item in [value] if isinstance(value, str) else value:
            if is_id(item.lower()):
                yield item.lower(), depth
    for _, item in _items(message):
        yield from ids_of(item, depth + 1)


def stand_in(given: str) -> str:
    """Return the id, of nothing, by which a given id is replaced; always the same, so that pages and repetitions fit."""
    return str(uuid.uuid5(_NAMESPACE, given))


def mask(message: Message, unreadable: Collection[str]) -> dict[str, str]:
    """Replace ids in the fields that are bound to projects; return what was given by what stands in for it."""
    given: dict[str, str] = {}

    def replaced(value: str) -> str:
        if value.lower() not in unreadable:
            return value
        given[stand_in(value.lower())] = value
        return stand_in(value.lower())

    for each in _messages_in(message):
        for name, value in _fields_named(each, _BOUND):
            if isinstance(value, str):
                setattr(each, name, replaced(value))
            else:
                value[:] = [replaced(item) for item in value]
    return given


def unmask(error: DomainError, given: Mapping[str, str]) -> None:
    """Name in an error what the caller has given instead of what stood in for it."""

    def original(text: str) -> str:
        for ours, theirs in given.items():
            text = text.replace(ours, theirs)
        return text

    error.message = original(error.message)
    error.metadata = {key: original(value) for key, value in error.metadata.items()}
    error.field_violations = tuple(
        FieldViolation(each.field, original(each.description), each.reason) for each in error.field_violations
    )
    error.preconditions = tuple(
        PreconditionViolation(each.type, original(each.subject), original(each.description))
        for each in error.preconditions
    )


def hide_in_error(error: DomainError, unreadable: Collection[str], given: Mapping[str, str]) -> DomainError:
    """Return an error as a caller may see it that may not read some ids, with what it has given in place of stand-ins."""
    if unreadable and error.without is not None:
        error = error.without(unreadable)
    unmask(error, given)
    return error


def subjects_of(message: Message) -> set[str]:
    """Return the ids of everything that an answer would have to hide if the caller may not read it."""
    found = set[str]()
    for each in _messages_in(message):
        if each.DESCRIPTOR.full_name == _FLOW or _HIDDEN in each.DESCRIPTOR.fields_by_name:
            found.update(getattr(each, name) for name in _id_fields(each.DESCRIPTOR))
        for _, value in _fields_named(each, _READ):
            found.update(item for item in ([value] if isinstance(value, str) else value) if is_id(item))
    return found - {""}


def hide(message: Message, unreadable: Collection[str]) -> None:
    """Hide, in an answer, whatever names one of the ids; each flow gets an id that stands for it in this answer only."""
    _Veil(unreadable).hide(message)


class _Veil:
    """The veil over one answer: it hides some ids, and each flow of theirs has one stand-in."""

    def __init__(self, unreadable: Collection[str]) -> None:
        self._unreadable = unreadable
        self._stand_ins = defaultdict[tuple[str, int], str](new_id)

    def hide(self, message: Any) -> bool:
        """Hide what names one of the ids, in a message and the messages in it; return whether there was any."""
        descriptor = message.DESCRIPTOR
        can_hide = _HIDDEN in descriptor.fields_by_name
        name = next(
            (name for name in _id_fields(descriptor) if getattr(message, name) in self._unreadable), None
        )
        if name is not None and (can_hide or descriptor.full_name == _FLOW):
            key = (getattr(message, name), getattr(message, "flow_kind", 0))
            message.Clear()
            setattr(message, name, self._stand_ins[key])
            if can_hide:
                message.hidden = True
            return True
        for field, value in _fields_named(message, _READ):
            if isinstance(value, str):
                setattr(message, field, self._stand_in(value))
            else:
                value[:] = [self._stand_in(item) for item in value]
        hidden = [(field, item) for field, item in _items(message) if self.hide(item)]
        if hidden and can_hide:
            if any(field.message_type.full_name == _FLOW for field, _ in hidden):
                _forget(message)
            else:
                # They may repeat what is hidden within the message.
                for text in _TEXTS.intersection(descriptor.fields_by_name):
                    message.ClearField(text)
        return bool(hidden)

    def _stand_in(self, given: str) -> str:
        return self._stand_ins[given, 0] if given in self._unreadable else given


def _forget(message: Any) -> None:
    """Leave of a message the references to flows, which are replaced already, and the status; say that it is hidden."""
    for field, _ in message.ListFields():
        is_flow = field.message_type is not None and field.message_type.full_name == _FLOW
        if not is_flow and field.name != _TOLD:
            message.ClearField(field.name)
    message.hidden = True


def _fields_named(message: Message, names: Collection[str]) -> list[tuple[str, Any]]:
    return [(field.name, value) for field, value in message.ListFields() if field.name in names]


def _id_fields(descriptor: Any) -> list[str]:
    """Return the fields by which a message says what it is about."""
    return [name for name in _IDS if name in descriptor.fields_by_name]


def _items(message: Message) -> Iterator[tuple[Any, Any]]:
    """Yield the messages in a message, with their fields; settings and labels have none."""
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for item in value if field.is_repeated else (value,):
                yield field, item


def _messages_in(message: Message) -> Iterator[Message]:
    yield message
    for _, item in _items(message):
        yield from _messages_in(item)
