"""URLs with which a file of a run is read without a token: run-service signs them, and the gateway answers them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Self

from pydantic import Field, model_validator

from servicekit.settings import TlsSettings
from servicekit.signing import ForgedError, Signer

PATH = "/artifacts/"  # of the gateway; the sealed text follows
_PURPOSE = "artifact"
_LEAST_KEY = 32  # characters


class ArtifactUrlSettings(TlsSettings):
    """The setting of the programs that sign and answer the URLs of files; environment variables as for `ServiceSettings`."""

    artifact_url_key: str = Field(
        default="",
        repr=False,
        description="Secret with which run-service signs the URLs of files in folders, at least 32 characters; the gateway has the "
        "same. Empty: no such URLs.",
    )

    @model_validator(mode="after")
    def _the_key_of_urls_is_long_enough(self) -> Self:
        if self.artifact_url_key and len(self.artifact_url_key) < _LEAST_KEY:
            raise ValueError(f"OPTAIC_ARTIFACT_URL_KEY must have at least {_LEAST_KEY} characters")
        return self


@dataclass(frozen=True)
class SignedFile:
    """One file that whoever holds the URL may read until a time."""

    name: str
    uri: str
    size_bytes: int
    sha256: str
    media_type: str
    expires: float  # seconds since 1970


class ArtifactUrls:
    """The key of the URLs. A URL contains the place of the file, and nothing secret but the right to read it."""

    def __init__(self, key: str) -> None:
        self._signer = Signer(hashlib.sha256(key.encode()).digest())

    def sign(self, gateway_url: str, file: SignedFile) -> str:
        """Return the URL of a file."""
        sealed = self._signer.seal(json.dumps(asdict(file)).encode(), _PURPOSE)
        return f"{gateway_url.rstrip('/')}{PATH}{sealed}"

    def open(self, sealed: str) -> SignedFile:
        """Return the file that a URL names, whether or not its time is over.

        Raises:
            ForgedError: The URL was changed, or signed with another key.
        """
        content = json.loads(self._signer.open(sealed, _PURPOSE))
        try:
            return SignedFile(**content)
        except TypeError as error:  # of another release
            raise ForgedError("the text names no file") from error
