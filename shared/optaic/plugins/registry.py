"""Read what installed packages register in the entry-point group `optaic.definitions`; imports none of their code."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.rules.forms import CODE_REF

GROUP = "optaic.definitions"
Report = Callable[[str, dict[str, Any]], None]  # an event, and its facts


def _ignore(event: str, facts: dict[str, Any]) -> None:
    """Report nothing: instance-service, which publishes the manifests, logs what is wrong with them."""


@functools.cache
def list_registered_code() -> frozenset[str]:
    """Return every `code_ref` that an installed package registers; read once, so a new package needs a new process.

    A package registers a class by an entry point that names it (`package.module:Class`), or by a manifest in the
    folder of the package that an entry point names.
    """
    entries = list_entry_points()
    named = {entry.value for entry in entries if CODE_REF.fullmatch(entry.value)}
    published = (request for _, requests in read_manifests(entries) for request in requests)
    return frozenset(named | {request.definition_version.code_ref for request in published} - {""})


def list_entry_points(report: Report = _ignore) -> list[EntryPoint]:
    """Return the entry points of the group; of a package installed twice, those that Python would import."""
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            if entries := list(distribution.entry_points.select(group=GROUP)):
                found.setdefault(distribution.name, entries)
        except Exception as error:  # noqa: BLE001 - damaged metadata of any package whatsoever
            report("damaged package", {"path": str(distribution.locate_file("")), "error": repr(error)})
    return [entry for name in sorted(found) for entry in sorted(found[name], key=lambda each: each.name)]


def read_manifests(
    entries: list[EntryPoint], report: Report = _ignore
) -> Iterator[tuple[Path, list[PublishDefinitionRequest]]]:
    """Yield each readable manifest of the packages that entry points name, with its definitions."""
    for entry in entries:
        if CODE_REF.fullmatch(entry.value):
            continue  # it registers a class
        facts = {"plugin": entry.name, "package": entry.value}
        try:
            manifests = [path for folder in _list_folders(entry) for path in sorted(folder.glob("*.json"))]
        except Exception as error:  # noqa: BLE001 - the finders of other packages may raise anything
            report("package refused", {**facts, "error": repr(error)})
            continue
        if not manifests:
            report("package without definitions", facts)
        for manifest in manifests:
            try:
                requests = parse_manifest(manifest.read_text("utf-8"))
            except Exception as error:  # noqa: BLE001 - a file of another package may hold anything
                report("manifest refused", {"manifest": str(manifest), "error": repr(error)})
            else:
                yield manifest, requests


def parse_manifest(text: str) -> list[PublishDefinitionRequest]:
    """Parse a manifest: one definition, or a list in which each comes after those that it uses.

    Raises:
        ValueError: The text is not JSON.
        json_format.ParseError: The JSON is not a definition.
    """
    given = json.loads(text)
    return [
        json_format.ParseDict(one, PublishDefinitionRequest())
        for one in (given if isinstance(given, list) else [given])
    ]


def _list_folders(entry: EntryPoint) -> list[Path]:
    """Return the folders in which the package of an entry point lies.

    Only the top-level package is located. Nothing is imported, because that would run its code here.
    """
    top, *rest = entry.value.split(".")
    spec = importlib.util.find_spec(top)
    return [Path(location, *rest) for location in spec.submodule_search_locations or ()] if spec else []
