"""Read the files that map tokens to tenants, actors and roles, and read them again when they change."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from servicekit.access import EXECUTOR, MAINTAINER, RESEARCHER, ROLES, SERVICE
from servicekit.context import TENANT_PATTERN

# What an entry without roles may do: what every token could do before there were roles, except to report runs.
DEFAULT_ROLES = frozenset({RESEARCHER, MAINTAINER})
# The role of services comes with the service token only.
GIVEN_ROLES = ROLES - {SERVICE}
_SHOWN_OF_DIGEST = 12
_MAXIMUM_ACTOR = 200
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TokenEntry:
    """Whom a token stands for."""

    tenant_id: str
    actor: str
    roles: frozenset[str] = DEFAULT_ROLES
    created: str = ""


def digest_of(token: str) -> str:
    """Return what a file holds of a token: the SHA-256, from which nobody can find the token."""
    return hashlib.sha256(token.encode()).hexdigest()


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    tenant: str = Field(pattern=f"^{TENANT_PATTERN.pattern}$")
    actor: str = Field(min_length=1, max_length=_MAXIMUM_ACTOR)
    roles: list[str] = sorted(DEFAULT_ROLES)
    created: str = ""


_ENTRIES = TypeAdapter(dict[Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")], _Entry])


def parse_entries(text: str | bytes, roles: frozenset[str] = GIVEN_ROLES) -> dict[str, TokenEntry]:
    """Return the entries of a file by digest; `roles` are those that the file may give.

    Raises:
        ValueError: It is not valid; the text says where and why.
    """
    try:
        entries = _ENTRIES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(each)[:_SHOWN_OF_DIGEST] for each in first["loc"])
        raise ValueError(f"{where or 'the file'}: {first['msg']}") from None
    for digest, entry in entries.items():
        if unknown := set(entry.roles) - roles:
            raise ValueError(
                f"{digest[:_SHOWN_OF_DIGEST]}.roles: {', '.join(sorted(unknown))} is not a role that this file may give; "
                f"these are: {', '.join(sorted(roles))}"
            )
    return {
        digest.lower(): TokenEntry(entry.tenant, entry.actor, frozenset(entry.roles), entry.created)
        for digest, entry in entries.items()
    }


class TokenFiles:
    """The entries of the files that the settings name, as they were when last valid.

    The file of executors gives the role executor only, so that whoever writes it cannot make an administrator.
    """

    def __init__(self, *, tokens_file: Path | None, executor_tokens_file: Path | None) -> None:
        self._files = [
            _TokenFile(path, roles, setting)
            for path, roles, setting in (
                (tokens_file, GIVEN_ROLES, "OPTAIC_TOKENS_FILE"),
                (executor_tokens_file, frozenset({EXECUTOR}), "OPTAIC_EXECUTOR_TOKENS_FILE"),
            )
            if path is not None
        ]

    def find(self, token: str) -> TokenEntry | None:
        """Return the entry of a token. The lookup is by digest, so its duration says nothing about a token."""
        digest = digest_of(token)
        return next((file.entries[digest] for file in self._files if digest in file.entries), None)

    async def refresh(self) -> None:
        """Read what has changed. A file that is not valid keeps its earlier entries in force.

        Raises:
            ValueError: A file is not valid.
            OSError: A file cannot be read.
        """
        problems: list[ValueError | OSError] = []
        for file in self._files:
            try:
                await asyncio.to_thread(file.refresh)
            except (ValueError, OSError) as error:
                problems.append(error)
        if problems:
            raise problems[0]


class _TokenFile:
    def __init__(self, path: Path, roles: frozenset[str], setting: str) -> None:
        self._path = path
        self._roles = roles
        self._setting = setting
        self._bytes = b""
        self.entries: Mapping[str, TokenEntry] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file. Its bytes are compared, because a file can be replaced within one tick of its clock."""
        content = self._path.read_bytes()
        if content == self._bytes:
            return
        try:
            entries = parse_entries(content, self._roles)
        except ValueError as error:
            raise ValueError(f"{self._setting}: {self._path} is not valid: {error}") from None
        if self._bytes:
            _log.info("tokens changed", file=str(self._path), tokens=len(entries))
        self.entries, self._bytes = entries, content
