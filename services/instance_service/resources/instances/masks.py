"""Apply field masks: check which paths may change, and merge the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from instance_service.domain import errors
from instance_service.resources.instances.references import NAMES_NO_OTHER
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.kinds import COMPONENT_KINDS, COMPOSED_KINDS, DEFINED_KINDS
from servicekit.errors import FieldViolation

_MUTABLE = (
    "name",
    "description",
    "owner",
    "labels",
    "schedule",
    "upstream_refs",
    "freshness_policy",
    "auto_refresh",
)
_COMPONENT_IDS = tuple(f"{kind}_instance_id" for kind in COMPONENT_KINDS)
_IDENTITY = ("definition_id", "definition_name")
_VERSION = ("definition_version_id", "definition_version")
_REFERENCE = (*_IDENTITY, *_VERSION, "track_newest", "config")
_OF_MODEL = ("model.monitoring",)  # the rest of a model's spec is output
_OF_DATASET = (*_COMPONENT_IDS, "evidently_project_id")
_OUTPUT_ONLY = {*_OF_DATASET, "macro_version_ids"}


def apply_mask(current: Instance, given: Instance, paths: Sequence[str]) -> Instance:
    """Return `current` with the masked fields taken from `given`; `*` means every mutable field.

    Raises:
        InvalidArgumentError: A path is unknown or immutable, or sets a version while track_newest is true.
    """
    kind = current.WhichOneof("spec")
    assert kind is not None
    mutable = (
        *_MUTABLE,
        *(_REFERENCE if kind in DEFINED_KINDS else ()),
        *(("probe_interval",) if kind in COMPOSED_KINDS else ()),
        *(_OF_MODEL if kind == "model" else (kind,)),
    )
    if list(paths) == ["*"]:
        paths = mutable
    violations = [
        FieldViolation(f"update_mask.paths[{index}]", problem, "IMMUTABLE_FIELD")
        for index, path in enumerate(paths)
        if (problem := _problem(path, mutable))
    ]
    if not paths:
        violations.append(
            FieldViolation("update_mask", "is empty; name at least one field", "INVALID_ARGUMENT")
        )
    if violations:
        raise errors.refusal(violations)
    paths = list(dict.fromkeys(paths))
    result = Instance()
    result.CopyFrom(current)
    for path in paths:
        _merge(result, given, path.split("."))
    if strays := _stray_versions(result, current, paths):
        raise errors.refusal(strays)
    _unpin(result, paths)
    _keep_output_only(result, current)
    return result


def _problem(path: str, mutable: Sequence[str]) -> str:
    names = path.split(".")
    if not any(f"{path}.".startswith(f"{one}.") for one in mutable):
        return f"{path!r} cannot be changed"
    descriptor: Descriptor | None = Instance.DESCRIPTOR
    for position, name in enumerate(names):
        if descriptor is None or descriptor.file.package != Instance.DESCRIPTOR.file.package:
            return f"{names[position - 1]!r} can only be replaced as a whole; name it without a subfield"
        field = descriptor.fields_by_name.get(name)
        if field is None:
            return f"{path!r} is not a field"
        if name in _OUTPUT_ONLY:
            return f"{name!r} cannot be changed"
        descriptor = None if field.is_repeated else field.message_type
    return ""


def _merge(target: Any, given: Any, names: list[str]) -> None:
    name = names[0]
    field: FieldDescriptor = target.DESCRIPTOR.fields_by_name[name]
    if len(names) > 1:
        _merge(getattr(target, name), getattr(given, name), names[1:])
        return
    target.ClearField(name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(getattr(given, name))
    elif field.message_type is not None:
        if given.HasField(name):
            getattr(target, name).CopyFrom(getattr(given, name))
        elif field.containing_oneof is not None:  # an empty spec is still set
            getattr(target, name).SetInParent()
    elif not field.has_presence or given.HasField(name):
        setattr(target, name, getattr(given, name))


def _stray_versions(result: Instance, current: Instance, paths: Sequence[str]) -> list[FieldViolation]:
    """Refuse versions that would be ignored; with `track_newest` in the mask, they may come from an earlier read."""
    strays = []
    for path in paths:
        *parents, name = path.split(".")
        if name in _VERSION and ".".join((*parents, "track_newest")) not in paths:
            after, before = _at(result, parents), _at(current, parents)
            if after.track_newest and getattr(after, name) not in {"", getattr(before, name)}:
                strays.append(FieldViolation(f"instance.{path}", NAMES_NO_OTHER, "INVALID_SPEC"))
    return strays


def _at(message: Any, names: Sequence[str]) -> Any:
    for name in names:
        message = getattr(message, name)
    return message


def _unpin(instance: Instance, paths: Sequence[str]) -> None:
    """Clear the parts of a definition reference that a changed part makes obsolete."""
    for path in paths:
        *parents, name = path.split(".")
        if name in (*_IDENTITY, *_VERSION) or name == "track_newest":
            component = _at(instance, parents)
            overtaken = {
                "definition_id": ("definition_name", *_VERSION),
                "definition_name": ("definition_id", *_VERSION),
                "definition_version_id": ("definition_version",),
                "definition_version": ("definition_version_id",),
            }.get(name, ())
            siblings = {
                other.rpartition(".")[2] for other in paths if other.rpartition(".")[0] == ".".join(parents)
            }
            for other in overtaken:
                if other not in siblings:
                    component.ClearField(other)


def _keep_output_only(result: Instance, current: Instance) -> None:
    kind = current.WhichOneof("spec")
    if kind not in {"dataset", "signal"}:
        return
    target = result.dataset if kind == "dataset" else result.signal.dataset
    source = current.dataset if kind == "dataset" else current.signal.dataset
    for name in _OF_DATASET:
        setattr(target, name, getattr(source, name))
