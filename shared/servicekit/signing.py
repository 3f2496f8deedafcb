"""Seal texts that callers hold and give back, such as page tokens, so that a changed text is noticed.

The key belongs to the service's database: all replicas share it, and it outlives a restart. A sealed text is readable by
its holder; it must contain no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

import sqlalchemy as sa

from servicekit.database import Database
from servicekit.schema import MigrationOperations, metadata, signing_key

_KEY_BYTES = 32
_MAC_BYTES = 16
_GET_KEY = sa.select(signing_key.c.key)


class ForgedError(ValueError):
    """A text was not sealed by this service, or was sealed for another purpose."""


class Signer:
    """The key that seals and opens texts (HMAC-SHA256, RFC 2104, cut to 16 bytes)."""

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_BYTES:
            raise ValueError(f"a signing key needs at least {_KEY_BYTES} bytes")
        self._key = key

    def seal(self, payload: bytes, *purpose: object) -> str:
        """Return a text of URL-safe characters that contains the payload and is bound to the purpose.

        The parts of `purpose` need a `repr` that is equal for equal values.
        """
        sealed = base64.urlsafe_b64encode(self._mac(payload, purpose) + payload)
        return sealed.decode("ascii").rstrip("=")

    def open(self, text: str, *purpose: object) -> bytes:
        """Return the payload of a sealed text.

        Raises:
            ForgedError: The text was changed, or is sealed with another key or for another purpose.
        """
        try:
            sealed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise ForgedError("the text is not Base64") from error
        mac, payload = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload, purpose)):
            raise ForgedError("the text was not sealed here for this purpose")
        return payload

    def _mac(self, payload: bytes, purpose: tuple[object, ...]) -> bytes:
        # The digest has a fixed length, so no purpose and payload can be taken for another pair.
        bound = hashlib.sha256(repr(purpose).encode("utf-8", "backslashreplace")).digest()
        return hmac.digest(self._key, bound + payload, "sha256")[:_MAC_BYTES]


async def load_signer(database: Database) -> Signer:
    """Return the signer with the key of a service's database."""
    async with database.infra() as connection:
        return Signer(bytes((await connection.execute(_GET_KEY)).scalar_one()))


def create_signing_key(op: MigrationOperations, service: str) -> None:
    """Create the table of the signing key with a new key, in a migration; only the infra login reads it."""
    metadata.create_all(op.get_bind(), tables=(signing_key,), checkfirst=False)
    op.get_bind().execute(sa.insert(signing_key).values(key=secrets.token_bytes(_KEY_BYTES)))
    op.execute("alter table signing_key enable row level security")
    op.execute("alter table signing_key force row level security")
    op.execute(f"grant select on signing_key to {service}_infra")
    op.execute(f"create policy signing_key_infra on signing_key for select to {service}_infra using (true)")
