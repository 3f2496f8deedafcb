"""Find and read the definition manifests of installed packages, without importing their code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import structlog
from google.protobuf import json_format

from instance_service.resources.definitions.content import hash_of
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from servicekit.contracts import check_contract

GROUP = "optaic.definitions"
_log = structlog.get_logger(__name__)


def find_requests() -> Iterator[tuple[str, PublishDefinitionRequest, str]]:
    """Yield the location of each readable manifest, one definition of it and its hash, ordered by package name."""
    for plugin in _plugins():
        try:
            manifests = [path for folder in _folders(plugin) for path in sorted(folder.glob("*.json"))]
        except Exception as error:  # noqa: BLE001 - the finders of other packages may raise anything
            _log.error("package refused", plugin=plugin.name, package=plugin.value, error=repr(error))
            continue
        if not manifests:
            _log.error("package without definitions", plugin=plugin.name, package=plugin.value)
        for manifest in manifests:
            try:
                requests = read_manifest(manifest.read_text("utf-8"))
                for request in requests:
                    check_contract(request)
                found = [(str(manifest), request, hash_of(request)) for request in requests]
            except Exception as error:  # noqa: BLE001 - a file of another package may hold anything
                _log.error("manifest refused", manifest=str(manifest), error=repr(error))
            else:
                yield from found


def read_manifest(text: str) -> list[PublishDefinitionRequest]:
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


def _plugins() -> list[EntryPoint]:
    """Return the entry points of our group; of a package installed twice, those that Python would import."""
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        try:
            if plugins := list(distribution.entry_points.select(group=GROUP)):
                found.setdefault(distribution.name, plugins)
        except Exception as error:  # noqa: BLE001 - damaged metadata of any package whatsoever
            _log.error("damaged package", path=str(distribution.locate_file("")), error=repr(error))
    return [plugin for name in sorted(found) for plugin in sorted(found[name], key=lambda each: each.name)]


def _folders(plugin: EntryPoint) -> list[Path]:
    """Return the folders in which the package of an entry point lies.

    Only the top-level package is located. Nothing is imported, because that would run its code in this service.
    """
    top, *rest = plugin.value.split(".")
    spec = importlib.util.find_spec(top)
    return [Path(location, *rest) for location in spec.submodule_search_locations or ()] if spec else []
