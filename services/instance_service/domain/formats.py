"""The formats of JSON Schema 2020-12, checked by the rules of their RFCs and independently of the installed packages.

The time of each check depends only on the length of the text.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import idna

from optaic.rules.forms import is_date

_TIME = re.compile(
    r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))", re.ASCII
)
_CLOCK = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_DURATION = re.compile(
    rf"P(?:(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)(?:{_CLOCK})?|{_CLOCK}|[0-9]+W)"
)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
_LONGEST_LABEL, _LONGEST_HOST, _LONGEST_LOCAL = 63, 253, 64
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LOCAL = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*|{_QUOTED}")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_RELATIVE_POINTER = re.compile(r"(?:0|[1-9][0-9]*)(?:[+-][1-9][0-9]*)?(?:#|(?:/(?:[^~/]|~[01])*)*)")
_INTERNATIONAL = "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U000e1000-\U000efffd" + "".join(
    f"{chr(plane * 0x10000)}-{chr(plane * 0x10000 + 0xFFFD)}" for plane in range(1, 0xE)
)
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_PERCENT = "%[0-9A-Fa-f]{2}"
_VARIABLE = rf"(?:[A-Za-z0-9_]|{_PERCENT})(?:\.?(?:[A-Za-z0-9_]|{_PERCENT}))*(?:\*|:[1-9][0-9]{{0,3}})?"
_TEMPLATE = re.compile(
    rf"(?:[!#$&-;=?-\[\]_a-z~{_INTERNATIONAL}{_PRIVATE}]|{_PERCENT}"
    rf"|\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
)


def _reference_pattern(international: str, private: str) -> re.Pattern[str]:
    """Return the pattern of a URI reference (RFC 3986), or with more letters of an IRI reference (RFC 3987).

    The group `ip6` holds an IPv6 address, which the pattern does not check.
    """
    plain = rf"A-Za-z0-9._~!$&'()*+,;={international}\-"
    mark = rf"[{plain}:@]|{_PERCENT}"
    return re.compile(
        rf"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?"
        rf"(?://(?:(?:[{plain}:]|{_PERCENT})*@)?"
        rf"(?:\[(?:(?P<ip6>[0-9A-Fa-f:.]+)|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
        rf"|(?:[{plain}]|{_PERCENT})*)(?::[0-9]*)?(?=[/?#]|\Z)(?P<rooted>(?:/(?:{mark})*)*)"
        rf"|(?P<path>(?!//)(?:{mark}|/)*))"
        rf"(?:\?(?:{mark}|[/?{private}])*)?(?:\#(?:{mark}|[/?])*)?"
    )


_URI = _reference_pattern("", "")
_IRI = _reference_pattern(_INTERNATIONAL, _PRIVATE)


@dataclass(frozen=True)
class Format:
    """A format: its rule in words, an example, and the function that checks a text."""

    rule: str
    example: str
    is_kept: Callable[[str], bool]


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    hour, minute, second = int(found[1]), int(found[2]), int(found[3])
    offset = int(found[5] or 0) * 60 + int(found[6] or 0)
    if hour > 23 or minute > 59 or int(found[5] or 0) > 23 or int(found[6] or 0) > 59:  # noqa: PLR2004 - of a clock
        return False
    utc = (hour * 60 + minute + (offset if found[4] == "-" else -offset)) % (24 * 60)
    # A leap second ends a day in UTC.
    return second < 60 or (second == 60 and utc == 24 * 60 - 1)  # noqa: PLR2004 - of a clock


def _is_date_time(text: str) -> bool:
    return is_date(text[:10]) and text[10:11] in {"T", "t"} and _is_time(text[11:])


def _is_ip4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ip6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text  # a zone is not part of the address


def _is_hostname(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= _LONGEST_HOST and all(
        len(label) <= _LONGEST_LABEL
        and _LABEL.fullmatch(label) is not None
        and (not label.lower().startswith("xn--") or _is_known_to_idna(label))
        for label in labels
    )


def _is_idn_hostname(text: str) -> bool:
    labels = _DOTS.split(text)
    if len(text) > _LONGEST_HOST or not all(labels):
        return False
    is_either_way = any(unicodedata.bidirectional(mark) in {"R", "AL", "AN"} for mark in text)
    return all(_is_hostname(one) if one.isascii() else _is_known_to_idna(one) for one in labels) and not (
        is_either_way and any(map(_is_misread, labels))
    )


def _is_known_to_idna(label: str) -> bool:
    if len(label) > _LONGEST_LABEL:
        return False
    try:
        idna.ulabel(idna.alabel(label))
    except (idna.IDNAError, UnicodeError):
        return False
    return True


def _is_misread(label: str) -> bool:
    """Return whether a label breaks RFC 5893, which applies to all labels if one of them is written right to left."""
    try:
        idna.check_bidi(label, check_ltr=True)
    except idna.IDNAError:
        return True
    return False


def _is_mailbox(text: str, is_local: Callable[[str], bool], is_host: Callable[[str], bool]) -> bool:
    local, at, host = text.rpartition("@")
    if not at or len(local.encode()) > _LONGEST_LOCAL or not is_local(local):
        return False
    if host.startswith("[") and host.endswith("]"):
        literal = host[1:-1]
        is_6 = literal[:5].lower() == "ipv6:"
        return _is_ip6(literal[5:]) if is_6 else _is_ip4(literal)
    return is_host(host)


def _is_email(text: str) -> bool:
    return _is_mailbox(text, lambda local: _LOCAL.fullmatch(local) is not None, _is_hostname)


def _is_idn_email(text: str) -> bool:
    # RFC 6531: a character outside ASCII may stand wherever a letter may.
    def is_local(local: str) -> bool:
        plain = "".join(mark if mark.isascii() else "x" for mark in local)
        return _LOCAL.fullmatch(plain) is not None

    return _is_mailbox(text, is_local, lambda host: _is_idn_hostname(unicodedata.normalize("NFC", host)))


def _is_reference(pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.fullmatch(text)
    if found is None or (found["ip6"] is not None and not _is_ip6(found["ip6"])):
        return False
    # Without a scheme, a colon in the first segment of the path would turn that segment into a scheme.
    return found["scheme"] is not None or ":" not in (found["path"] or "").partition("/")[0]


def _is_absolute(pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.fullmatch(text)
    return found is not None and found["scheme"] is not None and _is_reference(pattern, text)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "date": Format("a day of RFC 3339, YYYY-MM-DD", "2024-02-29", is_date),
        "time": Format("a time of RFC 3339, with its offset from UTC", "10:30:00Z", _is_time),
        "date-time": Format(
            "a moment of RFC 3339, with its offset from UTC", "2024-02-29T10:30:00Z", _is_date_time
        ),
        "duration": Format("a duration of RFC 3339, appendix A", "P1DT12H", _matches(_DURATION)),
        "email": Format("a mailbox of RFC 5321", "desk@example.org", _is_email),
        "idn-email": Format("a mailbox of RFC 6531", "händler@example.org", _is_idn_email),
        "hostname": Format("a host name of RFC 1123", "db.example.org", _is_hostname),
        "idn-hostname": Format("a host name of RFC 5890", "bücher.example", _is_idn_hostname),
        "ipv4": Format("an IPv4 address of four decimal numbers", "192.0.2.1", _is_ip4),
        "ipv6": Format("an IPv6 address of RFC 4291", "2001:db8::1", _is_ip6),
        "uri": Format("a URI of RFC 3986", "s3://bucket/key", lambda text: _is_absolute(_URI, text)),
        "uri-reference": Format(
            "a URI of RFC 3986, or a part of one", "../key?x=1", lambda text: _is_reference(_URI, text)
        ),
        "iri": Format(
            "an IRI of RFC 3987", "https://example.org/bücher", lambda text: _is_absolute(_IRI, text)
        ),
        "iri-reference": Format(
            "an IRI of RFC 3987, or a part of one", "../bücher", lambda text: _is_reference(_IRI, text)
        ),
        "uri-template": Format("a URI template of RFC 6570", "/prices/{symbol}", _matches(_TEMPLATE)),
        "uuid": Format("a UUID of RFC 4122", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", _matches(_UUID)),
        "json-pointer": Format("a JSON Pointer of RFC 6901", "/prices/0", _matches(_POINTER)),
        "relative-json-pointer": Format("a relative JSON Pointer", "1/prices", _matches(_RELATIVE_POINTER)),
    }
)
