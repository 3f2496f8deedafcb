"""Pin the definition versions that an instance uses, and check its configurations against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from google.protobuf.struct_pb2 import Struct

from instance_service.domain import errors
from instance_service.domain.versions import precedence
from instance_service.jsonschema_adapter import config_violations
from instance_service.resources.conversion import dataset_of, json_of
from instance_service.resources.definitions.macros import (
    MacroVersions,
    library_of,
)
from instance_service.resources.definitions.requirements import constraints_schema
from instance_service.resources.instances.columns import Columns
from instance_service.resources.instances.naming import Names, rename_in_config
from optaic.definition.v1.definition_pb2 import DEFINITION_STATE_RETIRED, DefinitionState, DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.spec_pb2 import ComponentSpec
from optaic.rules.kinds import COMPONENT_KINDS, DEFAULT_COMPONENTS, DEFINED_KINDS, DEFINITION_KINDS
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation, NotFoundError
from servicekit.ids import is_id

NAMES_NO_OTHER = (
    "cannot be set to another version while track_newest is true; omit it, or reload the instance"
)
# Kind, definition id, name, version id, version, and the version already held by a reference that tracks the newest.
Wanted: TypeAlias = tuple[str, str, str, str, str, str]
Versions: TypeAlias = Mapping[Wanted, DefinitionVersion]


@dataclass(frozen=True)
class Reference:
    """Describe a place where an instance names a definition: in a component's spec, or on the instance itself."""

    slot: str  # the component's or instance's kind
    path: str
    spec: ComponentSpec | Instance
    # What the instance already has here, whatever the state of that version.
    held: ComponentSpec | Instance = field(default_factory=ComponentSpec)
    # Macro versions that it already has, by name: an unchanged configuration keeps its meaning, and a reference that
    # tracks the newest version never moves back.
    held_macros: Mapping[str, str] = field(default_factory=dict)
    stays: bool = False  # it tracks the newest version, but keeps its version this time
    # By field, a version other than the held one that is named although track_newest is true: it may be an older read.
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Wanted]:
        """Return what the reference may mean, the likelier first; empty if an id is malformed."""
        spec = self.spec
        if any(id_ and not is_id(id_) for id_ in (spec.definition_id, spec.definition_version_id)):
            return []
        return [
            (
                kind,
                spec.definition_id.lower(),
                spec.definition_name,
                spec.definition_version_id.lower(),
                spec.definition_version,
                self.held.definition_version_id if spec.track_newest else "",
            )
            for kind in DEFINITION_KINDS[self.slot]
        ]

    @property
    def wanted_beside(self) -> dict[str, list[Wanted]]:
        """Return the definitions that each field of `beside` may name; empty if an id is malformed."""
        by_id = "definition_version_id"
        return {
            name: [
                (*one[:3], value.lower() if name == by_id else "", "" if name == by_id else value, "")
                for one in self.wanted
                if name != by_id or is_id(value)
            ]
            for name, value in self.beside.items()
        }

    def holds(self, version: DefinitionVersion) -> bool:
        """Return whether the instance already has this version here."""
        return bool(self.held.definition_version_id == version.definition_version_id)

    @property
    def is_named(self) -> bool:
        """Return whether the reference names its definition."""
        spec = self.spec
        return bool(spec.definition_id or spec.definition_name or spec.definition_version_id)


@dataclass(frozen=True)
class Use:
    """Hold a reference together with the version that it resolved to."""

    reference: Reference
    version: DefinitionVersion
    config: Mapping[str, Any]
    macros: MacroVersions

    def settings(self, names: Names) -> dict[str, object]:
        """Return the settings that affect results, with upstreams under the names used in fingerprints."""
        config = rename_in_config(self.version, self.config, names)
        settings: dict[str, object] = {"definition": self.version.content_hash, "config": config}
        if self.macros:
            settings["macros"] = {name: version.content_hash for name, version in self.macros.items()}
        return settings

    def versions(self) -> list[tuple[str, str, str]]:
        """Return (definition, version, state) of each version in use, including macros."""
        return [
            (one.definition_name, one.version, enum_word(DefinitionState, one.state))
            for one in (self.version, *self.macros.values())
        ]


def references_of(
    instance: Instance, current: Instance | None = None, *, stays: bool = False
) -> list[Reference]:
    """Return every place where an instance of its kind names a definition; a backtest has none.

    `current` is the stored instance, if there is one. With `stays`, an unchanged reference that tracks the newest
    version keeps its version.
    """
    kind = instance.WhichOneof("spec")
    held = {one.slot: one.spec for one in references_of(current)} if current else {}

    def reference(slot: str, path: str, spec: ComponentSpec | Instance) -> Reference:
        if (own := held.get(slot)) is None:
            return Reference(slot, path, spec, beside=_beside(spec, ComponentSpec()))
        is_held = spec.track_newest or own.config == spec.config
        macros = dict(own.macro_version_ids) if is_held else {}
        is_staying = stays and _still_tracks(slot, spec, own)
        return Reference(slot, path, spec, own, macros, is_staying, _beside(spec, own))

    if (dataset := dataset_of(instance)) is not None:
        path = "instance.dataset" if kind == "dataset" else "instance.signal.dataset"
        return [reference(slot, f"{path}.{slot}", getattr(dataset, slot)) for slot in COMPONENT_KINDS]
    return [reference(kind, "instance", instance)] if kind in DEFINED_KINDS else []


def _still_tracks(slot: str, spec: ComponentSpec | Instance, own: ComponentSpec | Instance) -> bool:
    """Return whether a reference still tracks the definition it tracks already, even if it is only partly given."""
    named: str | None = spec.definition_name
    if not (named or spec.definition_id or spec.definition_version_id == own.definition_version_id):
        named = DEFAULT_COMPONENTS.get(slot)
    return (
        spec.track_newest
        and own.track_newest
        and spec.config == own.config
        and named in {"", own.definition_name}
        and spec.definition_id in {"", own.definition_id}
    )


def _beside(spec: ComponentSpec | Instance, held: ComponentSpec | Instance) -> dict[str, str]:
    if not spec.track_newest:
        return {}
    given = {
        "definition_version_id": (spec.definition_version_id, held.definition_version_id),
        "definition_version": (spec.definition_version, held.definition_version),
    }
    return {name: wanted for name, (wanted, held) in given.items() if wanted not in {"", held}}


def complete_references(references: Iterable[Reference]) -> list[FieldViolation]:
    """Fill in the defaults of references; return a violation for each that names no definition."""
    violations = []
    for reference in references:
        spec, held = reference.spec, reference.held
        if spec.track_newest:
            is_held = spec.definition_version_id == held.definition_version_id
            if is_held and not (spec.definition_id or spec.definition_name):
                spec.definition_id = held.definition_id
            spec.definition_version_id = held.definition_version_id if reference.stays else ""
            spec.definition_version = ""
        if not reference.is_named:
            spec.definition_name = DEFAULT_COMPONENTS.get(reference.slot, "")
        if not reference.is_named:
            text = "definition_id or definition_name is required; set one of them"
            violations.append(FieldViolation(reference.path, text, "INVALID_SPEC"))
    return violations


def find_version(reference: Reference, versions: Versions) -> DefinitionVersion | None:
    """Return the existing version that a reference means; None if there is none."""
    return _first(reference.wanted, versions)


def _first(wanted: Iterable[Wanted], versions: Versions) -> DefinitionVersion | None:
    return next((versions[one] for one in wanted if one in versions), None)


def resolve(
    references: Sequence[Reference],
    versions: Versions,
    macros: Mapping[int, MacroVersions],
    columns: Columns,
    violations: list[FieldViolation],
) -> list[Use]:
    """Pin the references in place and check their configurations; violations are appended to a list.

    Args:
        references: Those of one instance; each must name a definition.
        versions: The result of `load_versions`.
        macros: The result of `load_called`.
        columns: The columns that expressions may read.
        violations: Violations are appended here.

    Raises:
        NotFoundError: A definition or version does not exist.
    """
    found = [find_version(reference, versions) for reference in references]
    missing = [reference for reference, version in zip(references, found, strict=True) if version is None]
    if missing:
        raise _not_found(missing)
    for reference, version in zip(references, found, strict=True):
        if version is not None:
            violations.extend(_beside_violations(reference, version, versions))
    return [
        _use(reference, version, macros.get(id(reference.spec), {}), columns, violations)
        for reference, version in zip(references, found, strict=True)
        if version is not None
    ]


def _beside_violations(
    reference: Reference, version: DefinitionVersion, versions: Versions
) -> list[FieldViolation]:
    """Refuse versions that no client can have read: unknown ones, and ones newer than the tracked version."""
    rank = precedence(version.version)
    found = {name: _first(wanted, versions) for name, wanted in reference.wanted_beside.items()}
    return [
        FieldViolation(f"{reference.path}.{name}", NAMES_NO_OTHER, "INVALID_SPEC")
        for name, named in found.items()
        if named is None or named.definition_id != version.definition_id or precedence(named.version) > rank
    ]


def _use(
    reference: Reference,
    version: DefinitionVersion,
    macros: MacroVersions,
    columns: Columns,
    violations: list[FieldViolation],
) -> Use:
    spec, where = reference.spec, f"{reference.path}.config"
    config: dict[str, Any] = {}
    try:
        config = json_of(spec.config)
        schema = json_of(version.parameters_schema)
    except ValueError as error:
        violations.append(FieldViolation(where, str(error), "INVALID_CONFIG"))
    else:
        operators, callable_macros = library_of(macros)
        problems = config_violations(
            version.content_hash, schema, config, where, callable_macros, operators, columns.check
        )
        violations.extend(
            _reportable(problems, is_held=reference.holds(version) and reference.held.config == spec.config)
        )
    # A draft can only be named by its exact version, so a client that names it wants to try it.
    if version.state == DEFINITION_STATE_RETIRED and not reference.holds(version):
        name = "definition_version_id" if spec.definition_version_id else "definition_version"
        text = f"version {version.version} of {version.definition_name} is retired; choose an active version"
        violations.append(FieldViolation(f"{reference.path}.{name}", text, "INVALID_SPEC"))
    spec.definition_id = version.definition_id
    spec.definition_name = version.definition_name
    spec.definition_version_id = version.definition_version_id
    spec.definition_version = version.version
    spec.ClearField("macro_version_ids")
    spec.macro_version_ids.update({name: called.definition_version_id for name, called in macros.items()})
    if not spec.HasField("config"):
        spec.config.CopyFrom(Struct())
    return Use(reference, version, config, macros)


def _reportable(problems: Iterable[FieldViolation], *, is_held: bool) -> Iterator[FieldViolation]:
    """Yield the problems to report: an unchanged configuration stays valid, unless a macro under it changed."""
    return (each for each in problems if not is_held or each.reason == "INVALID_EXPRESSION")


def check_constraints(
    use: Use, given: Struct, held: Struct | None, violations: list[FieldViolation]
) -> dict[str, Any]:
    """Check an optimizer's constraints against `$defs.constraints` of its definition's schema, and return them.

    `held` are the constraints that it already has.
    """
    path = "instance.portfolio_optimizer.constraints"
    try:
        constraints = json_of(given)
        schema = json_of(use.version.parameters_schema)
    except ValueError as error:
        violations.append(FieldViolation(path, str(error), "INVALID_CONFIG"))
        return {}
    key = f"{use.version.content_hash}#constraints"
    problems = config_violations(key, constraints_schema(schema), constraints, path)
    violations.extend(_reportable(problems, is_held=use.reference.holds(use.version) and held == given))
    return constraints


def _not_found(missing: Iterable[Reference]) -> NotFoundError:
    violations = [
        FieldViolation(
            reference.path,
            f"there is no {' or '.join(DEFINITION_KINDS[reference.slot])} definition {_described(reference)}",
            "DEFINITION_NOT_FOUND",
        )
        for reference in missing
    ]
    return errors.named_not_found(violations)


def _described(reference: Reference) -> str:
    spec = reference.spec
    parts = (spec.definition_name, spec.definition_id, spec.definition_version, spec.definition_version_id)
    return " ".join(part for part in parts if part)
