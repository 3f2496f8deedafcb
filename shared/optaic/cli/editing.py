"""`optaic instance create` and `update`: one instance, from a file or from values on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from optaic.cli.naming import find_instance, find_project
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

_STRUCT = "google.protobuf.Struct"
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
    project: Annotated[str, typer.Option("--project", help="Id or name of the project.", show_default=False)],
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
        fields = _merged(content, values or ())
        if "name" in fields:
            raise ValueError("the name is given as an argument; remove the field name")
        with placed:
            created = await client.instances.create(
                project=await find_project(client, project),
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
    """Change the given fields of an instance. Inside a config and inside labels, the other keys stay."""

    async def command(client: AsyncClient) -> None:
        if not (file or values or upstream):
            raise ValueError("nothing to change; pass --set, --upstream or --file")
        found = await find_instance(client, instance, project)
        content, placed = _read(file)
        changes = _merged(content, values or (), found)
        with placed:
            changed = await client.instances.update(
                found,
                changes,
                upstreams=await _upstreams(client, upstream, found.project_id),
                # What was read is part of what is written: nobody else may have changed it in between.
                etag=etag or (found.etag if values else ""),
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
        upstream = await find_instance(client, name, "" if "/" in name else project)
        found.setdefault(role, []).append(upstream.instance_id)
    return found


def _merged(
    fields: dict[str, Any], texts: Iterable[str], current: instance_pb2.Instance | None = None
) -> dict[str, Any]:
    """Add values to fields; where a path leads into a config or into labels, the current ones are kept beside them."""
    for text in texts:
        path, separator, value = text.partition("=")
        keys = path.split(".")
        if not separator or not all(keys):
            raise ValueError(f"{text!r} must have the form path=value")
        inner: Any = fields
        message: Message | None = current
        for at, key in enumerate(keys[:-1]):
            if key not in inner:
                inner[key] = _kept(message, key)
            inner, message = inner[key], _below(message, key)
            if not isinstance(inner, dict):
                raise TypeError(f"{path!r} leads into {'.'.join(keys[: at + 1])}, which is no mapping")
        inner[keys[-1]] = _value(value)
    return fields


def _kept(message: Message | None, key: str) -> dict[str, Any]:
    """Return what a message has in a config or a map, which an update replaces as a whole; else nothing."""
    field = _field(message, key)
    if message is None or field is None or field.message_type is None:
        return {}
    if field.message_type.GetOptions().map_entry:
        return dict(getattr(message, field.name))
    if field.message_type.full_name == _STRUCT:
        return json_format.MessageToDict(getattr(message, field.name))
    return {}


def _below(message: Message | None, key: str) -> Message | None:
    """Return the message in a field; None where there is none, or where its keys are not fields."""
    field = _field(message, key)
    if message is None or field is None or field.is_repeated or field.message_type is None:
        return None
    return None if field.message_type.full_name == _STRUCT else getattr(message, field.name)


def _field(message: Message | None, key: str) -> Any:
    return None if message is None else message.DESCRIPTOR.fields_by_name.get(our_name(key))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
