"""`optaic instance create` and `update`: one instance, from a file or from values on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from optaic.cli.completion import complete_projects
from optaic.cli.naming import find_instance, find_project, is_unattended
from optaic.cli.output import Format, OutputOption
from optaic.cli.session import (
    DryRunOption,
    EtagOption,
    InstanceArgument,
    ProjectOption,
    ReasonOption,
    end_dry_run,
    run,
)
from optaic.cli.shown import show_instance
from optaic.client import AsyncClient
from optaic.client.messages import our_name
from optaic.instance.v1 import instance_pb2
from optaic.rules.kinds import OWN_KINDS

_STRUCT = "google.protobuf.Struct"
_NULL = "null"  # removes what it is given to, a text too; a file may have the text
_FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", exists=True, dir_okay=False, help="YAML or JSON with the fields of the instance."
    ),
]
_SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="path=value, for example signal.dataset.pipeline.config.window=20; the value is JSON or plain text. May be repeated.",
    ),
]
_UpstreamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream", "-u", help="role=instance, by id or name; may be repeated. Replaces all upstreams."
    ),
]


def create(
    name: Annotated[str, typer.Argument(help="The name of the new instance.", show_default=False)],
    project: Annotated[
        str,
        typer.Option(
            "--project",
            help="Id or name of the project.",
            show_default=False,
            autocompletion=complete_projects,
        ),
    ],
    file: _FileOption = None,
    values: _SetOption = None,
    upstream: _UpstreamOption = None,
    dry_run: DryRunOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Create an instance from a file, from values, or both; `optaic apply` keeps many instances as files say."""

    async def command(client: AsyncClient) -> None:
        content, placed = _read(file)
        fields = _with_values(content, values or ())
        if "name" in fields:
            raise ValueError("the name is given as an argument; remove the field name")
        with placed:
            created = await client.instances.create(
                project=await find_project(client, project, whole=is_unattended()),
                name=name,
                upstreams=await _upstreams(client, upstream, project),
                validate_only=dry_run,
                reason=reason,
                **fields,
            )
        show_instance(created, output, created.instance_id)
        end_dry_run(dry_run=dry_run)

    run(command)


def update(
    instance: InstanceArgument,
    file: _FileOption = None,
    values: _SetOption = None,
    upstream: _UpstreamOption = None,
    dry_run: DryRunOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Change the given fields of an instance; the others stay, inside of a config, labels and a schedule too. null removes one."""

    async def command(client: AsyncClient) -> None:
        if not (file or values or upstream):
            raise ValueError("nothing to change; pass --set, --upstream or --file")
        found = await find_instance(client, instance, project, whole=is_unattended())
        content, placed = _read(file)
        changes = _merged(found, _with_values(content, values or ()))
        with placed:
            changed = await client.instances.update(
                found,
                changes,
                upstreams=await _upstreams(client, upstream, found.project_id),
                # What was read is part of what is written: nobody else may have changed it in between.
                etag=etag or found.etag,
                validate_only=dry_run,
                reason=reason,
            )
        show_instance(changed, output, f"revision {changed.revision}")
        end_dry_run(dry_run=dry_run)

    run(command)


def _read(file: Path | None) -> tuple[dict[str, Any], AbstractContextManager[None]]:
    """Return the fields in a file, and what adds their places to refusals.

    Raises:
        ValueError: It holds no single mapping.
    """
    if file is None:
        return {}, nullcontext()
    from optaic.cli.documents import placing, read_yaml  # noqa: PLC0415 - slow to import, and rarely needed

    found = read_yaml(file)
    if len(found.values) != 1 or not isinstance(found.values[0], dict):
        raise ValueError(f"{file} must hold the fields of one instance, for example `description: ...`")
    return dict(found.values[0]), placing(found, "documents[0].")


async def _upstreams(
    client: AsyncClient, texts: Iterable[str] | None, project: str
) -> dict[str, list[str]] | None:
    """Return the ids of upstreams by role; without any text: None, which changes none."""
    if not texts:
        return None
    found: dict[str, list[str]] = {}
    for text in texts:
        role, separator, name = text.partition("=")
        if not separator or not role or not name:
            raise ValueError(f"upstream {text!r} must have the form role=instance")
        upstream = await find_instance(client, name, "" if "/" in name else project, whole=is_unattended())
        found.setdefault(role, []).append(upstream.instance_id)
    return found


def _with_values(fields: dict[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """Add values that are given as path=value to fields."""
    for text in texts:
        path, separator, value = text.partition("=")
        keys = path.split(".")
        if not separator or not all(keys):
            raise ValueError(f"{text!r} must have the form path=value")
        inner: Any = fields
        kind: Any = instance_pb2.Instance.DESCRIPTOR
        while len(keys) > 1:
            field = _field(kind, keys[0])
            if _is_map(field):
                keys[1:] = [".".join(keys[1:])]  # a label may have dots in its name
            inner = inner.setdefault(keys.pop(0), {})
            if not isinstance(inner, dict):
                raise TypeError(f"{path!r} leads into a value that is no mapping")
            kind = field.message_type if field is not None else None
        is_text = value != _NULL and _is_text(kind, keys[0])
        inner[keys[0]] = value if is_text else _json_or_text(value)
    return fields


def _merged(current: Message, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes of a message with what an update would otherwise remove beside them."""
    return {key: _merged_field(current, _field(current.DESCRIPTOR, key), changes[key]) for key in changes}


def _merged_field(current: Message, field: FieldDescriptor | None, change: Any) -> Any:
    if field is None or field.message_type is None or not isinstance(change, Mapping):
        return change
    kept = getattr(current, field.name)
    if _is_map(field):
        return _patched(dict(kept), change)
    if field.is_repeated:
        return change
    if field.message_type.full_name == _STRUCT:
        return _patched(json_format.MessageToDict(kept), change)
    if field.name in OWN_KINDS or current.DESCRIPTOR is not instance_pb2.Instance.DESCRIPTOR:
        return _merged(kept, change)  # here an update changes single fields
    # The form with a type says all of a schedule; every other message is replaced as a whole.
    return change if "type" in change else _patched(_plain(kept), change)


def _patched(kept: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was kept with the changes; null removes a key (RFC 7396)."""
    for key, value in change.items():
        below = kept.pop(
            key, None
        )  # what is new comes last: of several alternatives it is the one that counts
        if value is not None:
            inner = below if isinstance(below, dict) else {}
            kept[key] = _patched(inner, value) if isinstance(value, Mapping) else value
    return kept


def _plain(message: Message) -> dict[str, Any]:
    """Return the fields of a message that are set; its messages as mappings."""
    return {
        field.name: _plain(value)
        if isinstance(value, Message) and value.DESCRIPTOR.file.package != "google.protobuf"
        else value
        for field, value in message.ListFields()
    }


def _field(kind: Any, key: str) -> Any:
    if kind is None:
        return None
    return kind.fields_by_name.get(key) or kind.fields_by_name.get(our_name(key))


def _is_map(field: FieldDescriptor | None) -> bool:
    return field is not None and field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_text(kind: Any, key: str) -> bool:
    """Return whether a field of a message, or a value of a map, is a text."""
    if kind is not None and kind.GetOptions().map_entry:
        key = "value"
    field = _field(kind, key)
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
