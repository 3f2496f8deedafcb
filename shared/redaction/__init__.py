"""Remove secrets from texts; no resource, service or tool is known here.

Secret are the credentials of URLs, what is said of a password, token or the like, the values of the variables
`OPTAIC_SECRET_...` of this process, and those that it was told to remember, also encoded. A reference like
`${OPTAIC_SECRET_WAREHOUSE}` is no secret and stays.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote

PREFIX = "OPTAIC_SECRET_"
HIDDEN = "***"
SHORTEST = 4  # characters: a shorter value would be found within ordinary words
_WINDOW = 50_000  # characters
_LONGEST_MATCH = 5_000  # characters that any pattern of URLs looks at from where it begins
_SHORTEST_CODED = 8  # characters of an encoded secret
_remembered: tuple[str, ...] = ()
_REFERENCE = re.compile(r"\$\{" + PREFIX + r"[A-Z0-9_]+\}")
_STARTS_WITH_REFERENCE = re.compile(_REFERENCE.pattern + r"(?:$|[/?#,])")
_NO_SECRETS = frozenset({HIDDEN, "None", "True", "False", "null"})

# A user in a URL. Signs of regular expressions and of brackets are none: patterns of schemas are no URLs.
_USER = r"[^\s:/?#\"'<>\[\]()|\\^*`]{0,200}"
_NO_PORT = r"(?!\d{1,5}(?![^\s/?#\"'<>),;:.\]}]))"
_WORD = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|account[_-]?key"
    r"|credential|signature)"
)
_NAME = r"[\w.-]{0,100}?" + _WORD + r"[\w.-]{0,40}"
_STEMS = ("pass", "pwd", "secret", "token", "key", "credential", "signature")
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)

# Each hides its group `secret`. The order counts: the first takes the password to the last @ of what looks like one word.
_OF_URLS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"://{_USER}:(?!\d{{1,5}}[/?#])(?P<secret>(?:(?!://)[^\s\"'<>`]){{1,1000}})@",
        rf"://{_USER}:{_NO_PORT}(?P<secret>[^\s@:](?:(?!://)[^@\n]){{0,200}}?)@",  # with blanks or quotes in it
        rf"://{_USER}:{_NO_PORT}(?P<secret>[^\s\"'<>@`:][^\s\"'<>@`]{{0,1000}})",  # cut off before the @
        r"://[^\s:/?#@%\"'<>]{0,200}%3A(?P<secret>[^\s/?#@\"'<>]{1,1000})@",
        r"\b(?:https?|ftp|git)://(?P<secret>[^\s/?#@:\"'<>]{1,1000})@",  # a token in the place of the user
        r"%3A%2F%2F[^\s%&\"']{0,200}%3A(?P<secret>(?:(?!%40|%3A%2F%2F)[^\s&\"']){1,1000})%40",
        rf"[?&;](?:{_NAME}|key|sig|auth)=(?P<secret>[^&\s\"'<>;]{{1,4000}})",
    )
)
_OF_SETTINGS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\w.-]){_NAME}\s?=(?!=)\s?(?P<secret>'[^'\n]*'|\"[^\"\n]*\"|[^\s,;&'\"<>)\]}}]{{1,4000}})",
        rf"[\"']{_NAME}[\"']\s?:\s?(?P<secret>'[^'\n]*'|\"[^\"\n]*\")",
        rf"\\\"{_NAME}\\\"\s?:\s?\\\"(?P<secret>[^\"\n]*)\\\"",  # JSON within JSON
        rf"(?:(?<![\w.-])|%3B|%3F|%26){_NAME}%3D(?P<secret>(?:(?!%3B|%26|%7D)[^\s&\"']){{1,1000}})",
    )
)
# In prose. What follows a name and a colon is the secret, unless it begins what is said about it; without a colon, or
# after a word of many meanings, it is one where it looks like none of a language: with a digit or a sign in it.
_STRONG = r"(?:passw(?:or)?d|passphrase|pwd|secret|credential|api[ _-]?key|access[ _-]?key|private[ _-]?key|account[ _-]?key)"
_SAID_OF = (
    r"(?!(?:must|is|are|was|were|be|has|have|had|no|not|none|null|nil|expected|should|shall|may|might|can|cannot|could"
    r"|does|do|did|will|would|unknown|invalid|missing|required|needs?|takes?|gives?|given|a|an|the|value|values|property"
    r"|only|this|that|it|its|unexpected|wrong|incorrect|authentication|failed|failure|empty|set|unset|reference|use|used"
    r"|write|written|read|str|string|text|int|bytes|bool|optional|any|true|false|hidden|expired|denied|mismatch|too|more"
    r"|less|at|in|of|for|to|from|and|or|if|there|type|field|fields|one|each|all|end|eof)\b)"
)
_UNLIKE_WORDS = r"(?=[^\s\"'<>,;()]*[A-Za-z])(?=[^\s\"'<>,;()]*[0-9!#$%&*+=~^?@])(?!(?-i:[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?![\w-]))[^\s\"'<>,;()]{4,4000}"
_BARE = r"[^\s,;&'\"<>)\]}]{1,4000}"
_QUOTED = r"'[^'\n]+'|\"[^\"\n]+\""
_OF_PROSE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\w.-])[\w.-]{{0,100}}?{_STRONG}\d?[\"']?[ \t]?(?::|=>|->)[ \t]*(?!//|[\"']?\$\{{){_SAID_OF}(?P<secret>{_QUOTED}|{_BARE})",
        rf"(?<![\w.\"'-]){_STRONG}[ \t]+(?:(?:is|was)[ \t]+)?(?P<secret>{_QUOTED})",
        rf"(?<![\w.-])[\w.-]{{0,100}}?(?:token|signature)\d?[\"']?[ \t]?(?::|=>|->)[ \t]*(?P<secret>{_UNLIKE_WORDS})",
        rf"(?<![\w.\"'-])(?:{_STRONG}|token|signature)[ \t]+(?:(?:is|was)[ \t]+)?(?P<secret>{_UNLIKE_WORDS})",
    )
)
_OF_HEADERS = re.compile(
    r"authorization[\"']?\s?[:=]\s?[\"']?(?:basic|bearer|token)\s+(?P<secret>[^\s\"']+)", re.IGNORECASE
)
_OF_TOKENS = re.compile(r"\bBearer\s+(?P<secret>[A-Za-z0-9._~+/=-]{16,})")
# PostgreSQL repeats what it refuses, on several lines where a value has them; the text may be cut off within it.
_OF_ROWS = re.compile(r"Failing row contains \((?P<secret>.*?)(?=\)\.?(?:\r?\n|\Z)|\Z)", re.DOTALL)
_PASSWORD = re.compile(rf"://{_USER}:(?P<secret>[^\s/?#@\"'<>`]{{1,1000}})@")
_PARAMETER = re.compile(rf"[?&](?:{_NAME}|sig)=(?P<secret>[^&\s\"'<>;]{{1,4000}})", re.IGNORECASE)

# What is certainly one: `key=` may be a name, and what stands before a missing @ a port.
_IN_CLEAR = (_OF_URLS[0], _OF_URLS[1], _OF_URLS[3], _OF_URLS[4], _OF_URLS[5], _PARAMETER)


def is_reference(text: str) -> bool:
    """Return whether a text is a reference to a secret, and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def has_reference(text: str) -> bool:
    """Return whether a text has a reference to a secret in it."""
    return _REFERENCE.search(text) is not None


def is_secret_name(name: str) -> bool:
    """Return whether the name of a field suggests that it holds a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def redact_urls(text: str) -> str:
    """Return a text without the credentials in its URLs; the rest stays unchanged."""
    if "://" not in text and "%3A%2F%2F" not in text and "%3a%2f%2f" not in text:
        return text
    for pattern in _OF_URLS:
        text = _hide_all(pattern, text)
    return text


def has_credentials(text: str) -> bool:
    """Return whether a text has a URL with credentials in clear text, or one whose credentials were hidden."""
    if "://" not in text and "%3a%2f%2f" not in text.lower():
        return False
    return any(
        match["secret"] == HIDDEN or not _is_shown(match["secret"])
        for pattern in _IN_CLEAR
        for match in _matches(pattern, text)
    )


def hide_credentials(text: str) -> str:
    """Return a text without what is certainly a credential in its URLs; anything less certain stays readable."""
    if "://" not in text and "%3a%2f%2f" not in text.lower():
        return text
    for pattern in _IN_CLEAR:
        text = _hide_all(pattern, text)
    return text


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text without its secrets."""
    # Many texts are empty, and to look up the secrets costs.
    return redactor(environment)(text) if text else text


def redactor(environment: Mapping[str, str] = os.environ) -> Callable[[str], str]:
    """Return `redact` for many texts: to look up the secrets costs more than all else that a short text costs."""
    return partial(_redact, known=_known_secrets(environment))


def _redact(text: str, known: Sequence[str]) -> str:
    for value in known:
        text = text.replace(value, HIDDEN)
    text = redact_urls(text)
    lower = text.lower()
    if any(stem in lower for stem in _STEMS):
        for pattern in (*_OF_SETTINGS, *_OF_PROSE):
            text = pattern.sub(_hide, text)
    if "authorization" in lower:
        text = _OF_HEADERS.sub(_hide, text)
    if "Bearer" in text:
        text = _OF_TOKENS.sub(_hide, text)
    return _OF_ROWS.sub(_hide, text) if "Failing row" in text else text


def redact_value(value: Any) -> Any:
    """Return plain data with all its texts redacted, names of members too; values under secret names are hidden."""
    return _redact_all(value, redactor())


def _redact_all(value: Any, by: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return by(value)
    if isinstance(value, Mapping):
        return {
            by(name) if isinstance(name, str) else name: _hidden(each, by)
            if isinstance(name, str) and is_secret_name(name)
            else _redact_all(each, by)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact_all(each, by) for each in value]
    return value


def redact_field(path: str, value: Any) -> Any:
    """Return the value that is shown for a field of a configuration: hidden if a name in its path suggests a secret."""
    names = re.split(r"[.\[\]']+", path)
    return (_hidden if any(map(is_secret_name, names)) else _redact_all)(value, redact_urls)


def _hidden(value: Any, by: Callable[[str], str]) -> Any:
    """Return plain data with each text hidden, except references."""
    if isinstance(value, str):
        return by(value) if _is_shown(value) else HIDDEN
    if isinstance(value, Mapping):
        return {
            by(name) if isinstance(name, str) else name: _hidden(each, by) for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hidden(each, by) for each in value]
    return value


def _is_shown(secret: str) -> bool:
    bare = secret.strip("'\"")
    return not bare or bare in _NO_SECRETS or _STARTS_WITH_REFERENCE.match(bare) is not None


def _hide_all(pattern: re.Pattern[str], text: str) -> str:
    """Hide what a pattern of URLs finds in a text."""
    if len(text) <= _WINDOW:
        return pattern.sub(_hide, text)
    parts, end = [], 0
    for match in _matches(pattern, text):
        parts += [text[end : match.start()], _hide(match)]
        end = match.end()
    return "".join((*parts, text[end:]))


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern of URLs, window by window: within one, no other thread of the process runs."""
    begin = 0
    for end in range(_WINDOW, len(text) + _WINDOW, _WINDOW):
        for match in pattern.finditer(text, begin, end + _LONGEST_MATCH):
            if match.start() >= end:
                break
            begin = match.end()
            yield match
        begin = max(begin, end)


def _hide(match: re.Match[str]) -> str:
    if _is_shown(match["secret"]):
        return match[0]
    start, end = match.start("secret") - match.start(), match.end("secret") - match.start()
    return f"{match[0][:start]}{HIDDEN}{match[0][end:]}"


def remember(values: Iterable[str]) -> None:
    """Hide these values too, from now on; they are secrets that no variable of this process holds."""
    global _remembered  # noqa: PLW0603 - what is secret is known to a process as a whole
    _remembered = tuple(dict.fromkeys((*_remembered, *values)))


def _known_secrets(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the values of this process's secrets in all their notations, longest first."""
    values = [value for name, value in environment.items() if name.startswith(PREFIX)]
    return _list_forms((*values, *_remembered))


@lru_cache(maxsize=16)
def _list_forms(values: tuple[str, ...]) -> Sequence[str]:
    found = {
        form
        for value in values
        for part in _parts(value)
        if len(part) >= SHORTEST
        for form in (*_notations(part), *_encodings(part))
        if len(form) >= SHORTEST
    }
    return sorted(found, key=len, reverse=True)


def _notations(part: str) -> Iterator[str]:
    """Yield a secret as texts have it: plain, quoted, and with the case of its letters changed."""
    is_long = len(part) >= _SHORTEST_CODED  # a short one is an ordinary word in another case
    for text in (part, part.lower(), part.upper(), part.swapcase()) if is_long else (part,):
        yield from (text, quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1], repr(text)[1:-1])


def _encodings(part: str) -> Iterator[str]:
    """Yield what is in an encoded text that holds a secret, wherever it stands in the text."""
    if len(part) < _SHORTEST_CODED:
        return
    data = part.encode(errors="surrogateescape")
    yield from (data.hex(), data.hex().upper(), part[::-1])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(
            3
        ):  # three bytes make four characters: where it begins, others have a part of the first
            coded = encode(b"\0" * before + data).decode().rstrip("=")
            whole = coded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
            if len(whole) >= _SHORTEST_CODED:
                yield whole


def _parts(value: str) -> Iterator[str]:
    """Yield a secret and, if it is a URL, its password."""
    yield value
    for secret in _list_credentials(value):
        yield secret
        yield unquote(secret)


def _list_credentials(text: str) -> Iterator[str]:
    """Return the passwords, tokens and signatures in URLs, exactly as they appear there."""
    for word in text.split() if "://" in text else ():
        if "://" in word:
            for pattern in (_PASSWORD, _PARAMETER):
                yield from (match["secret"] for match in pattern.finditer(word))
