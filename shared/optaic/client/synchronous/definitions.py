"""Definitions: reusable code, versioned; and how a listing is read whole. Generated from optaic.client.definitions by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optaic.client import definitions as asynchronous
from optaic.client.synchronous.loop import Plain
from optaic.definition.v1 import definition_pb2
from optaic.run.v1 import run_service_pb2 as run_api


class Definitions(Plain[asynchronous.Definitions]):
    """The methods for definitions: reusable code, versioned."""

    def list(self, kind: str | int = 0) -> list[definition_pb2.Definition]:
        """Return all definitions, sorted by name; `kind` as `pipeline` or by number."""
        return self._loop.run(self._target.list(kind))

    def get(
        self, definition_id: str = "", *, kind: str | int = 0, name: str = ""
    ) -> definition_pb2.Definition:
        """Return a definition by id, or by kind and name."""
        return self._loop.run(self._target.get(definition_id, kind=kind, name=name))

    def versions(self, definition_id: str) -> Sequence[definition_pb2.DefinitionVersion]:
        """Return all versions, newest first."""
        return self._loop.run(self._target.versions(definition_id))

    def publish(
        self,
        name: str,
        kind: str | int,
        definition_version: Mapping[str, Any] | definition_pb2.DefinitionVersion,
        *,
        description: str = "",
        draft: bool = False,
        validate_only: bool = False,
    ) -> definition_pb2.DefinitionVersion:
        """Publish one immutable version; the same content again returns the existing one.

        The answer's `publication_report` says what differs from the version before it, whether that breaks, and
        which instances follow. Nothing follows a `draft` until it is activated; `validate_only` stores nothing.
        """
        return self._loop.run(
            self._target.publish(
                name,
                kind,
                definition_version,
                description=description,
                draft=draft,
                validate_only=validate_only,
            )
        )

    def activate(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Activate a draft: new instances get this version, and instances that track the newest version move to it."""
        return self._loop.run(
            self._target.activate(definition_version_id, reason, validate_only=validate_only)
        )

    def deprecate(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Mark a version as no longer to be used. Instances keep working."""
        return self._loop.run(
            self._target.deprecate(definition_version_id, reason, validate_only=validate_only)
        )

    def retire(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Retire a deprecated version: new instances cannot use it, existing instances keep working."""
        return self._loop.run(self._target.retire(definition_version_id, reason, validate_only=validate_only))

    def accept_code(
        self,
        definition_version_id: str,
        hash: str,
        reason: str,
        *,
        request_id: str = "",
        validate_only: bool = False,
    ) -> run_api.CodeHash:
        """Accept changed code that means the same: from now on runs with this hash start, and others fail.

        The hash is the one that the refused run shows (`run.code`); nothing becomes stale.
        """
        return self._loop.run(
            self._target.accept_code(
                definition_version_id, hash, reason, request_id=request_id, validate_only=validate_only
            )
        )

    def code_hashes(self, definition_version_id: str = "") -> Sequence[run_api.CodeHash]:
        """Return the current and earlier code hashes of a version, or of all versions; the valid one first."""
        return self._loop.run(self._target.code_hashes(definition_version_id))
