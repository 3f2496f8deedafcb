"""Describe what a database refuses without what it quotes: an error of a driver may hold values of rows, or what a server says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SHOWS_BEGIN = 20  # characters of a query
_NAMES = r"(?P<name>[^\s\"'`,;]{1,200})"
# How drivers name what a query is wrong in. The name is repeated only if the configuration has it.
_TEMPLATES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), said)
    for pattern, said in (
        (rf"no such table: {_NAMES}$", "there is no table {}"),
        (rf"no such column: \"?{_NAMES}\"?", "there is no column {}"),
        (rf"no such function: {_NAMES}$", "there is no function {}"),
        (rf"ambiguous column name: {_NAMES}$", "column {} is ambiguous"),
        (rf"near \"{_NAMES}\": syntax error", "a syntax error near {}"),
        (rf"unrecognized token: \"{_NAMES}", "a syntax error near {}"),
        (r"incomplete input", "the query is incomplete"),
        (
            r"file is not a database|malformed database schema|disk image is malformed",
            "the file is not a database that can be read",
        ),
        (r"unable to open database file", "the database file cannot be opened"),
        (r"database is locked", "the database is locked"),
        (r"not authorized|readonly database|read-only", "the query does more than read"),
        (r"interrupted", "the query was interrupted"),
        (rf"relation \"{_NAMES}\" does not exist", "there is no table {}"),
        (rf"column \"?{_NAMES}\"? does not exist", "there is no column {}"),
        (rf"schema \"{_NAMES}\" does not exist", "there is no schema {}"),
        (rf"function {_NAMES}\(.*\) does not exist", "there is no function {}"),
        (rf"syntax error at or near \"{_NAMES}\"", "a syntax error near {}"),
        (r"syntax error at end of input", "the query is incomplete"),
        (rf"permission denied for \w+ {_NAMES}$", "the login must not read {}"),
        (rf"Table '{_NAMES}' doesn't exist", "there is no table {}"),
        (rf"Unknown column '{_NAMES}' in", "there is no column {}"),
        (r"You have an error in your SQL syntax", "a syntax error"),
        (r"statement timeout|max_execution_time|max_statement_time", "it took too long"),
    )
)
_CONNECTING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), said)
    for pattern, said in (
        (r"password authentication failed|access denied for user", "it refuses the user or the password"),
        (r"no password supplied|fe_sendauth", "it wants a password"),
        (r"role \"[^\"]*\" does not exist", "it does not know the user"),
        (r"database \"[^\"]*\" does not exist|unknown database", "it has no such database"),
        (r"no pg_hba\.conf entry", "it does not accept this user from this host"),
        (r"too many clients|too many connections|remaining connection slots", "it has too many connections"),
        (r"starting up|shutting down|recovery", "it is starting or stopping"),
        (r"connection refused", "connection refused"),
        (r"certificate|\bSSL\b|\bTLS\b", "the encrypted connection failed"),
        (r"timeout|timed out", "it did not answer in time"),
        (r"network is unreachable|no route to host", "the network does not lead there"),
        (r"closed the connection|connection reset|broken pipe|lost connection", "it closed the connection"),
        (r"file is not a database|disk image is malformed", "the file is not a database that can be read"),
        (r"unable to open database file", "the database file cannot be opened"),
        (r"database is locked", "the database is locked"),
    )
)


def describe_query_error(error: BaseException, config: Mapping[str, object]) -> str:
    """Return why a database refuses a query: its code, and the place in the query, but no value of a row."""
    original: Any = getattr(error, "orig", None) or error
    said, code = str(original), _code_of(original)
    known = _words(config)
    for pattern, text in _TEMPLATES:
        if found := pattern.search(said.splitlines()[0] if said else ""):
            name = found.groupdict().get("name") or ""
            is_known = bool(name) and _words_of(name) <= known
            why = text.format(repr(name) if is_known else "of this name")
            break
    else:
        why = "the database refuses it"
    details = ", ".join(filter(None, (code, _place_of(error, original, config))))
    return f"{why} ({details})" if details else why


def describe_connecting(error: BaseException) -> str:
    """Return why a connection failed, in our words: what a server says may be anything."""
    original: Any = getattr(error, "orig", None) or error
    if isinstance(original, OSError) and original.strerror:
        return original.strerror
    text = str(original)
    why = next((said for pattern, said in _CONNECTING if pattern.search(text)), "")
    code = _code_of(original)
    return why or f"the connection failed ({code})"


def _code_of(error: Any) -> str:
    """Return the name of an error, and its code where the driver gives one."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if state and re.fullmatch(r"[0-9A-Z]{5}", str(state)):
        return f"{name}, SQLSTATE {state}"
    first = error.args[0] if getattr(error, "args", ()) else None
    return f"{name}, error {first}" if isinstance(first, int) else str(name)


def _place_of(error: Any, original: Any, config: Mapping[str, object]) -> str:
    """Return where in the query it is, if the database says so and a query is configured."""
    position = getattr(getattr(original, "diag", None), "statement_position", None)
    query, statement = config.get("query"), str(getattr(error, "statement", None) or "")
    if not isinstance(query, str) or not str(position or "").isdigit():
        return ""
    begin = statement.find(query.strip()[:_SHOWS_BEGIN])
    place = int(str(position)) - max(begin, 0)
    return f"near character {place} of the query" if 0 < place <= len(query) else ""


def _words(config: Mapping[str, object]) -> set[str]:
    texts = [str(config.get(name) or "") for name in ("query", "table", "cursor")]
    columns = config.get("columns")
    if isinstance(columns, Mapping):
        texts += [str(each) for each in columns.values()]
    return set().union(*map(_words_of, texts))


def _words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
