"""The content of every built-in definition that was ever released: a version never changes what it holds.

As a program it adds the versions that are new; `make baseline` calls it.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from instance_service.resources.definitions.content import hash_of
from optaic.definition.v1.definition_pb2 import DefinitionKind
from optaic.plugins.registry import parse_manifest
from servicekit.enums import enum_word

RELEASED = Path(__file__).with_name("published_definitions.json")


def read_released() -> dict[str, str]:
    """Return the content hash of each released version, by kind, name and version."""
    released: dict[str, str] = json.loads(RELEASED.read_text("utf-8"))
    return released


def compute_present() -> dict[str, str]:
    """Return the same of the manifests as they are now."""
    found = {}
    for manifest in (resources.files("instance_service") / "builtin").iterdir():
        if manifest.name.endswith(".json"):
            for request in parse_manifest(manifest.read_text("utf-8")):
                version = request.definition_version.version
                key = f"{enum_word(DefinitionKind, request.kind)} {request.name} {version}"
                found[key] = hash_of(request)
    return found


if __name__ == "__main__":
    known = read_released() if RELEASED.exists() else {}
    text = json.dumps({**compute_present(), **known}, indent=1, sort_keys=True)
    RELEASED.write_text(text + "\n", "utf-8")
