"""Take a token apart and verify its signature with a key of the issuer; nothing in the token says which key that is but its id."""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from servicekit.oidc.strict_json import read_object

# Signatures with public keys only: a key that everybody knows must never be the secret of a MAC.
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
MAXIMUM_TOKEN = 8192  # more does not fit into the metadata of a call

_PARTS = 3
_MAXIMUM_KEYS = 100
_MAXIMUM_KEY_ID = 500
_RSA_BITS = range(2048, 8193)
_KINDS = ("RSA", "EC", "OKP")
_CURVES = {"P-256", "P-384", "Ed25519"}
_TYPES = {"jwt", "application/jwt", "at+jwt", "application/at+jwt"}
# Headers by which a token brings its own key or its own rules.
_REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty"})


@dataclass(frozen=True)
class Token:
    """A token whose signature is not verified yet."""

    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


def parse(text: str) -> Token:
    """Return the parts of a token.

    Raises:
        ValueError: It is not a token that could be accepted; the text says why and repeats nothing of it.
    """
    if len(text) > MAXIMUM_TOKEN:
        raise ValueError(f"it is longer than {MAXIMUM_TOKEN} characters")
    parts = text.split(".")
    if len(parts) != _PARTS or not all(parts):
        raise ValueError("it does not have three parts")
    header, payload, signature = (_decode(part) for part in parts)
    algorithm, key_id = _read_header(read_object(header))
    claims = read_object(payload)
    return Token(algorithm, key_id, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def _decode(part: str) -> bytes:
    try:
        content = base64.b64decode(part.encode() + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("a part is not base64url") from None
    # Another way to write the same bytes is another token, which nobody issued.
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode():
        raise ValueError("a part is not base64url")
    return content


def _read_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    if refused := sorted(_REFUSED_HEADERS & set(header)):
        raise ValueError(f"its header holds {', '.join(refused)}")
    algorithm, kind, key_id = header.get("alg"), header.get("typ"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"its algorithm is none of {', '.join(ALGORITHMS)}")
    if "typ" in header and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise ValueError("its type is neither JWT nor at+jwt")
    if "kid" in header and not (isinstance(key_id, str) and 0 < len(key_id) <= _MAXIMUM_KEY_ID):
        raise ValueError("its key id is not a short text")
    return algorithm, key_id


class PublicKeys:
    """The keys of an issuer that can verify signatures; `left_out` counts those that cannot, or may not."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read a JSON Web Key Set.

        Raises:
            ValueError: It is none.
        """
        entries = document.get("keys")
        if not isinstance(entries, list) or len(entries) > _MAXIMUM_KEYS:
            raise ValueError(f"it has no list `keys` of at most {_MAXIMUM_KEYS}")
        self._keys: dict[tuple[str | None, str], list[Key]] = defaultdict(list)
        self.left_out = 0
        for entry in entries:
            key = _import(entry)
            algorithms = [name for name in ALGORITHMS if key is not None and _fits(key, name)]
            self.left_out += not algorithms
            for name in algorithms:
                assert key is not None
                self._keys[None, name].append(key)
                if isinstance(key_id := entry.get("kid"), str):
                    self._keys[key_id, name].append(key)

    def find(self, token: Token) -> Key | None:
        """Return the key that a token names; one without a key id means the only key of its algorithm."""
        keys = self._keys.get((token.key_id, token.algorithm), ())
        return keys[0] if len(keys) == 1 else None


def is_signed(token: Token, key: Key) -> bool:
    """Return whether the signature of a token is the key's."""
    try:
        return JWSRegistry.algorithms[token.algorithm].verify(token.signed, token.signature, key)
    except (JoseError, ValueError):
        return False


def _import(entry: Any) -> Key | None:
    # Never a symmetric key: everybody knows what this list holds.
    if not isinstance(entry, dict) or entry.get("kty") not in _KINDS:
        return None
    try:
        key = JWKRegistry.import_key(entry)
        key.check_key_op("verify")
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, OverflowError):
        return None
    # A private key in a public list is known to everybody.
    return None if key.is_private else key


def _fits(key: Key, algorithm: str) -> bool:
    if isinstance(key, RSAKey):
        is_strong = key.public_key.key_size in _RSA_BITS
    else:
        is_strong = isinstance(key, ECKey | OKPKey) and key.curve_name in _CURVES
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return is_strong
