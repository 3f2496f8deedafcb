"""`python -m devstack.dead_letters`: list, show and replay the events that services could not apply."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

import structlog
from google.protobuf import symbol_database
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from devstack import nats
from devstack.broker import find_nats
from devstack.config import Settings
from devstack.endpoints import NoStackError
from redaction import redact_value
from redaction.messages import without_credentials
from servicekit.dead_letters import DeadLetter, Operator, operating
from servicekit.errors import UnavailableError
from servicekit.tls import TlsFiles

_CONSUMER = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST = 2**63
_LONGEST_ERROR = 120  # characters, in a list
_COLUMNS = ("number", "time", "consumer", "stream", "tenant", "type", "event id", "attempts", "error")


def main(given: Sequence[str] | None = None) -> int:
    """Execute the command of the command line; return the exit code."""
    arguments = _make_parser().parse_args(given)
    actions = {"list": _list, "show": _show, "replay": _replay}
    try:
        place = find_nats(Settings(), nats.OPERATOR)
        code = asyncio.run(actions[arguments.action](arguments, *place))
        sys.stdout.flush()
    except (NoStackError, UnavailableError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:  # the reader has enough, as in `list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devstack.dead_letters",
        description="Events that a service could not apply. OPTAIC_NATS_URL names the server, with the login `operator`; "
        "without it, the one of the embedded stack is taken.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="list dead letters, the oldest first")
    listing.add_argument("--consumer", type=_consumer, help="only those of this consumer")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    show = actions.add_parser("show", help="show one with its event as JSON; secrets are hidden")
    show.add_argument("number", type=_number)
    replay = actions.add_parser("replay", help="have consumers apply dead letters again")
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("number", type=_number, nargs="?", help="one dead letter")
    which.add_argument("--consumer", type=_consumer, help="all of this consumer")
    which.add_argument("--all", action="store_true", help="all of all consumers")
    replay.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a dead letter; `list` shows them")
    return int(text)


def _consumer(text: str) -> str:
    if not _CONSUMER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a consumer; `list` shows them")
    return text


async def _list(arguments: argparse.Namespace, url: str, tls: TlsFiles | None) -> int:
    count = 0
    async with operating(url, tls) as operator:
        async for letter in operator.list(arguments.consumer or ""):
            count += 1
            if arguments.json:
                sys.stdout.write(json.dumps(_describe(letter)) + "\n")
                continue
            if count == 1:
                _write(_COLUMNS)
            _write([*list(_describe(letter).values())[:-1], letter.error[:_LONGEST_ERROR]])
    if not arguments.json:
        sys.stdout.write(f"{_some(count)}\n")
    return 0


async def _show(arguments: argparse.Namespace, url: str, tls: TlsFiles | None) -> int:
    async with operating(url, tls) as operator:
        letter = await operator.find(arguments.number)
    if letter is None:
        return _missing(arguments.number)
    event = {"subject": letter.subject, "headers": redact_value(dict(letter.headers)), "event": _read(letter)}
    sys.stdout.write(json.dumps({**_describe(letter), **event}, indent=2) + "\n")
    return 0


async def _replay(arguments: argparse.Namespace, url: str, tls: TlsFiles | None) -> int:
    async with operating(url, tls) as operator:
        letters = await _choose(arguments, operator)
        if letters is None:
            return _missing(arguments.number)
        if letters and not arguments.yes:
            question = f"Replay {_some(len(letters))}?"
            if not await asyncio.to_thread(_confirm, question):  # the connection has to be kept meanwhile
                return 1
        outcomes: Counter[str] = Counter()
        for letter in letters:
            replay = await operator.replay(letter)
            outcomes[replay.outcome] += 1
            if replay.error:
                sys.stderr.write(f"{letter.number} {letter.consumer}: {replay.outcome}: {replay.error}\n")
    kept = outcomes["failed"] + outcomes["unanswered"]
    sys.stdout.write(
        f"applied {outcomes['applied']}, applied before {outcomes['applied before']}, "
        f"gone {outcomes['gone']}, failed {outcomes['failed']}, unanswered {outcomes['unanswered']}, "
        f"unknown {outcomes['unknown']}; kept {kept}\n"
    )
    return 1 if kept or outcomes["unknown"] else 0


async def _choose(arguments: argparse.Namespace, operator: Operator) -> Sequence[DeadLetter] | None:
    """Return the dead letters to replay, or None if there is none with the given number."""
    if arguments.number is None:
        # Without what they contain: there may be many, and only the consumer needs it.
        return [replace(letter, payload=b"") async for letter in operator.list(arguments.consumer or "")]
    letter = await operator.find(arguments.number)
    return None if letter is None else [letter]


def _describe(letter: DeadLetter) -> dict[str, str | int]:
    return {
        "number": letter.number,
        "time": letter.time.astimezone(UTC).isoformat(timespec="seconds") if letter.time else "",
        "consumer": letter.consumer,
        "stream": letter.stream,
        "tenant": letter.tenant_id,
        "type": letter.type,
        "event_id": letter.event_id,
        "attempts": letter.attempts,
        "error": letter.error,
    }


def _read(letter: DeadLetter) -> Any:
    """Return the event's message as JSON without secrets, or why it cannot be read."""
    package = letter.type.rpartition(".")[0]
    if package.startswith("optaic."):
        try:
            importlib.import_module(f"{package}.{package.split('.')[1]}_events_pb2")
        except ModuleNotFoundError:
            return f"{len(letter.payload)} bytes of a type that this release does not know"
    try:
        message = symbol_database.Default().GetSymbol(letter.type).FromString(letter.payload)
    except (KeyError, DecodeError):
        return f"{len(letter.payload)} bytes that are no message of the type {letter.type or '(none)'}"
    return redact_value(MessageToDict(without_credentials(message), preserving_proto_field_name=True))


def _missing(number: int) -> int:
    sys.stderr.write(f"there is no dead letter {number}: it was replayed, or is too old; see `list`\n")
    return 1


def _some(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"


def _write(cells: Sequence[object]) -> None:
    sys.stdout.write("  ".join(str(cell) if cell != "" else "-" for cell in cells) + "\n")


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write(f"{question} There is no terminal on which to ask; pass --yes to confirm.\n")
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(main())
