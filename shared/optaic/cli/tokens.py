"""`optaic admin token`: the file of tokens that the services read; the commands need no service."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from optaic.cli.exits import Exit
from optaic.cli.output import (
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    is_data,
    print_data,
    print_line,
    print_list,
)
from optaic.cli.session import fail
from optaic.client.discovery import find_tokens_file
from optaic.rules.access import DEFAULT_ROLES, GIVEN_ROLES, TENANT_PATTERN

app = typer.Typer(no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="File of tokens; by default the one of OPTAIC_TOKENS_FILE, or else of the stack on this machine.",
    ),
]
_BYTES = 32
_SHOWN = 12  # hexadecimal digits of a digest, by which a token is named
_LONGEST_ACTOR = 200


@app.command()
def create(
    actor: Annotated[str, typer.Argument(help="Who gets the token, for example a person or a program.")],
    tenant: Annotated[
        str, typer.Option("--tenant", help="The tenant to which the token belongs.")
    ] = "default",
    role: Annotated[
        list[str] | None,
        typer.Option(help=f"A role: {', '.join(GIVEN_ROLES)}. Repeat it for several; by default viewer."),
    ] = None,
    file: FileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a token and print it once; the file holds only its SHA-256, so nobody can read it there."""
    roles = sorted(set(role or ["viewer"]))
    if unknown := [each for each in roles if each not in GIVEN_ROLES]:
        fail(f"--role: must be one of {', '.join(GIVEN_ROLES)}, not {unknown[0]!r}", status=Exit.USAGE)
    if re.fullmatch(TENANT_PATTERN, tenant) is None:
        fail(f"--tenant: {tenant!r} is not a tenant id; it must match {TENANT_PATTERN}", status=Exit.USAGE)
    if not 0 < len(actor) <= _LONGEST_ACTOR:
        fail(f"actor: must have 1 to {_LONGEST_ACTOR} characters", status=Exit.USAGE)
    token = secrets.token_urlsafe(_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    entry = {"tenant": tenant, "actor": actor, "roles": roles, "created": _now()}
    with _changing(_path(file)) as entries:
        entries[digest] = entry
    if is_data(output):
        print_data({"token": token, "digest": digest, **entry}, output)
    else:
        print_line(token)
        typer.echo(
            f"{actor} of {tenant} is {', '.join(roles)}. This token is shown only now; keep it secret. "
            f"Its name in the list is {digest[:_SHOWN]}.",
            err=True,
        )


@app.command()
def revoke(
    token: Annotated[
        str, typer.Argument(help="The name of the token in the list: the first digits of its digest.")
    ],
    file: FileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove a token; the services refuse it within two seconds, and end its open streams within a minute."""
    path = _path(file)
    with _changing(path) as entries:
        found = [digest for digest in entries if token and digest.lower().startswith(token.lower())]
        if len(found) != 1:
            problem = "no token has" if not found else f"{len(found)} tokens have"
            fail(
                f"{problem} a name in {path} that begins with {token!r}; `optaic admin token list` shows the names",
                status=Exit.ERROR if found else Exit.NOT_FOUND,
            )
        entry = entries.pop(found[0])
    if is_data(output):
        print_data({"digest": found[0], **entry}, output)
    else:
        print_line(f"the token {found[0][:_SHOWN]} of {entry['actor']} is revoked")


@app.command("list")
def list_tokens(file: FileOption = None, output: ListOutputOption = ListFormat.TABLE) -> None:
    """List whom tokens are for, and which roles they have; the tokens themselves are stored nowhere."""
    entries = [
        {"digest": digest, "roles": sorted(DEFAULT_ROLES), "created": "", **entry}
        for digest, entry in _read(_path(file)).items()
    ]
    entries.sort(key=lambda each: (each["tenant"], each["actor"], each["created"], each["digest"]))
    rows = [
        (each["digest"][:_SHOWN], each["tenant"], each["actor"], ", ".join(each["roles"]), each["created"])
        for each in entries
    ]
    print_list(entries, ("TOKEN", "TENANT", "ACTOR", "ROLES", "CREATED"), rows, output)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _path(given: Path | None) -> Path:
    path = given or find_tokens_file()
    if path is None:
        return fail(
            "no file of tokens is known; name it with --file, set OPTAIC_TOKENS_FILE, or start a stack here",
            status=Exit.USAGE,
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    """Return the entries of a file; a file that is not there has none.

    Raises:
        typer.Exit: The file cannot be read, or is not valid.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        return fail(f"{path} cannot be read: {error}")
    try:
        entries = json.loads(content)
    except ValueError as error:
        return fail(f"{path} is not JSON: {error}")
    if not isinstance(entries, dict) or not all(
        isinstance(each, dict) and isinstance(each.get("tenant"), str) and isinstance(each.get("actor"), str)
        for each in entries.values()
    ):
        return fail(f"{path} is not a file of tokens: each entry must have a tenant and an actor")
    return entries


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[dict[str, Any]]:
    """Give the entries of a file to change, and replace the file in one step; others who change it wait.

    Nothing is written if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = _read(path)
        yield entries
        draft = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
            target.write(json.dumps(entries, indent=2) + "\n")
            target.flush()
            os.fsync(target.fileno())
        if (
            path.exists()
        ):  # whoever may read the file now, such as the services' own user, may read it afterwards
            before = path.stat()
            draft.chmod(before.st_mode & 0o777)
            with contextlib.suppress(PermissionError):
                os.chown(draft, before.st_uid, before.st_gid)
        draft.replace(path)
    finally:
        os.close(lock)
