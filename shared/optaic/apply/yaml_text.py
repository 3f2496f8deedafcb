"""Read YAML 1.2's core schema as plain values with their places, and write it; knows no message.

The meaning of an unquoted word is decided here, word by word, not by the library, whose YAML is 1.1: there `10:30` is a number,
`ON` is true and `1e-3` is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

import yaml

_MOST_VALUES = 200_000  # aliases counted each time
_MOST_LEVELS = 100
_MOST_DIGITS = 400  # no number of a document has more
_INFINITE = (float("inf"), float("-inf"))
_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE, _FALSE = re.compile("true|True|TRUE"), re.compile("false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_CORE: tuple[tuple[str, re.Pattern[str], list[str | None]], ...] = (
    ("null", _NULL, ["n", "N", "~", "", None]),
    ("bool", re.compile(f"{_TRUE.pattern}|{_FALSE.pattern}"), list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _REAL, list("-+.0123456789")),
    ("merge", re.compile("<<"), ["<"]),
)
# Line ends to YAML 1.1 and letters to 1.2: neither may be guessed.
_ODD_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_LINE_ENDS = re.compile("[\n\r\x85\u2028\u2029]")
_HALF = re.compile("[\ud800-\udfff]")
_HINTED = frozenset({"INVALID_VALUE", "INVALID_CONFIG", "INVALID_ARGUMENT", "INVALID_DOCUMENT"})


class _Loader(yaml.SafeLoader):
    """The library's parser; it resolves as the core schema does."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the library's way; filled below


class _Dumper(yaml.SafeDumper):
    """A writer of YAML that quotes each text which YAML 1.1 or 1.2 would read as another type; it writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Escape every end of a line, because YAML 1.1 and 1.2 read some of them differently."""
    style = '"' if _LINE_ENDS.search(text) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _name, _pattern, _first in _CORE:
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _whole, _first)
    _Dumper.add_implicit_resolver(f"{_TAG}{_name}", _whole, _first)


@dataclass(frozen=True)
class Place:
    """The place of a value in a file, and its text there; `text` is empty for lists and mappings."""

    line: int
    text: str = ""
    is_quoted: bool = False


@dataclass(frozen=True)
class Documents:
    """The documents of one file: their plain values, and the place of each value, by its path."""

    file: str
    values: list[Any] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)

    def where(self, path: str, reason: str = "") -> str:
        """Return the file and line of a path or of its nearest parent, and for some errors a hint about the value there."""
        found = path
        while found and found not in self.places:
            found = found[: max(found.rfind("."), found.rfind("["), 0)]
        if not found:
            return self.file
        place = self.places[found]
        said = _reading(place) if found == path and reason in _HINTED else ""
        return f"{self.file}, line {place.line}{said}"


def read(text: str, file: str) -> Documents:
    """Return the documents of a text; empty ones are left out.

    Raises:
        ValueError: It is not YAML, has a key twice, or what no document of ours can mean; it says where and why.
    """
    found = Documents(file)
    if odd := _ODD_LINE_ENDS.search(text):
        code = f"{ord(odd[0]):04x}"
        line = text.count("\n", 0, odd.start()) + 1
        raise ValueError(
            f'{file}, line {line}: write the character U+{code.upper()} as "\\u{code}", in double quotes'
        )
    try:
        loader = _Loader(text)
        while loader.check_node():
            build = _Builder(found, f"documents[{len(found.values)}]")
            node = loader.get_node()
            value = build.value(node) if node is not None else None
            if value is not None:
                found.values.append(value)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = f"U+{ord(error.character) if isinstance(error.character, str) else error.character:04X}"
        raise ValueError(
            f"{file}, line {line}: the character {code} is not allowed; write it as an escape in double quotes"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ValueError(f"{file}, line {line}: not valid YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise ValueError(
            f"{file}: the document is nested too deep; use at most {_MOST_LEVELS} levels"
        ) from None
    return found


def write(documents: Iterable[Mapping[str, Any]], stream: TextIO) -> None:
    """Write documents so that every reader of YAML, of 1.1 or 1.2, reads the same values."""
    yaml.dump_all(documents, stream, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Builder:
    """A builder of plain values from the nodes that the parser composed, for one document."""

    def __init__(self, found: Documents, path: str) -> None:
        self._found = found
        self._path = path
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        return self._value(node, self._path)

    def _value(self, node: yaml.Node, path: str) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise self._error(
                node,
                f"the document has more than {_MOST_VALUES} values (values of aliases count); divide it into several files",
            )
        if isinstance(node, yaml.ScalarNode):
            quoted = node.style is not None
            self._found.places[path] = Place(node.start_mark.line + 1, node.value, quoted)
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "the value contains itself through an alias; remove the alias")
        if len(self._open) >= _MOST_LEVELS:
            raise self._error(node, f"the value is nested too deep; use at most {_MOST_LEVELS} levels")
        self._found.places[path] = Place(node.start_mark.line + 1)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                return [self._value(each, f"{path}[{index}]") for index, each in enumerate(node.value)]
            self._check_tag(node, "map")
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: str) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        is_merging = False
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                if is_merging:
                    raise self._error(
                        key_node, "the key '<<' is used twice in one mapping; give it a list instead"
                    )
                is_merging = True
                for each in self._merged(value_node, path):
                    merged = {**each, **merged}
                continue
            key = self._key(key_node)
            if key in own:
                raise self._error(key_node, f"the key {key!r} is used twice in one mapping; remove one")
            own[key] = self._value(value_node, f"{path}.{key}")
            line = key_node.start_mark.line + 1
            place = self._found.places[f"{path}.{key}"]
            if not place.text:
                self._found.places[f"{path}.{key}"] = Place(line, "", place.is_quoted)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: str) -> Iterator[dict[str, Any]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for each in parts:
            if not isinstance(each, yaml.MappingNode):
                raise self._error(each, "'<<' needs a mapping or a list of mappings; give it an alias of one")
            yield self._value(each, path)

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            if not isinstance(node, yaml.ScalarNode):
                raise self._error(node, "a key must be text; write it in quotes")
            text = f'a key must be text; write "{node.value}" in quotes'
            raise self._error(node, text)
        return key

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        convert = _CONVERSIONS.get(node.tag.removeprefix(_TAG))
        if convert is None:
            raise self._error(node, f"the tag {node.tag.replace(_TAG, '!!')} is not supported; remove it")
        pattern, make = convert
        if not pattern.fullmatch(text):
            raise self._error(node, f"{text!r} is not a value of its tag {node.tag.replace(_TAG, '!!')}")
        if make is _number and len(text) > _MOST_DIGITS:
            raise self._error(
                node, f"the number has more than {_MOST_DIGITS} digits; write it as text, in quotes"
            )
        value = make(text)
        if make is _number and value in _INFINITE and "inf" not in text.lower():
            raise self._error(node, f"{text} is too large for a number; write it as text, in quotes")
        return value

    def _check_tag(self, node: yaml.Node, name: str) -> None:
        if node.tag != f"{_TAG}{name}":
            raise self._error(node, f"the tag {node.tag.replace(_TAG, '!!')} is not supported; remove it")

    def _error(self, node: yaml.Node, text: str) -> ValueError:
        return ValueError(f"{self._found.file}, line {node.start_mark.line + 1}: {text}")


def _number(text: str) -> int | float:
    if not _INTEGER.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def _joined(text: str) -> str:
    """Return a text with its halves of characters, as JSON escapes them, made whole."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


_CONVERSIONS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (_NULL, lambda _: None),
    "bool": (re.compile(f"{_TRUE.pattern}|{_FALSE.pattern}"), lambda text: text.lower() == "true"),
    "int": (_INTEGER, _number),
    "float": (_REAL, _number),
    "str": (re.compile(".*", re.DOTALL), _joined),
    "merge": (re.compile("<<"), str),
}


def _meaning(text: str) -> str:
    """Return what a word is without quotes."""
    for pattern, words in ((_NULL, "no value"), (_INTEGER, "a number"), (_REAL, "a number")):
        if pattern.fullmatch(text):
            return words
    return "a truth value" if _TRUE.fullmatch(text) or _FALSE.fullmatch(text) else "text"


def _reading(place: Place) -> str:
    """Return a hint about a value that is easily misread, and how to write the intended value."""
    if not place.text or len(place.text) > 100 or "\n" in place.text:  # noqa: PLR2004 - what a line takes
        return ""
    meaning = _meaning(place.text)
    if meaning == "text":
        return ""
    if place.is_quoted:
        return f': "{place.text}" is text in quotes; without them it is {meaning}'
    return f': {place.text} is {meaning}; to make it text write "{place.text}"'
