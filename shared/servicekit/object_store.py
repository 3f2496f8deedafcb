"""Define the settings with which programs reach the object store of all data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from servicekit.plaintext import leaves_in_plaintext
from servicekit.settings import TlsSettings


class ObjectStoreSettings(TlsSettings):
    """Settings of every program that reads or writes data in S3; environment variables as for `ServiceSettings`."""

    s3_endpoint: str = Field(
        default="", description="http(s)://host:port of an S3 server of your own; empty: Amazon's."
    )
    s3_region: str = Field(
        default="",
        description="Region of the bucket; empty: `AWS_REGION`, or us-east-1 for a server of your own.",
    )
    s3_path_style: bool = Field(
        default=True, description="Name the bucket in the path; false: in the host, as Amazon recommends."
    )
    s3_access_key_id: str = Field(
        default="",
        description="Access key of the credential; empty: what the `AWS_` variables and the machine give. A worker's credential "
        "should reach `<OPTAIC_DATA_ROOT>/<tenant>/` only.",
    )
    s3_secret_access_key: str = Field(default="", repr=False, description="Secret of that access key.")
    s3_secret_access_key_file: Path | None = Field(
        default=None, description="File with that secret, read again for each run; instead of the variable."
    )
    s3_session_token: str = Field(default="", repr=False, description="Token of a temporary credential.")
    s3_timeout_seconds: float = Field(default=30.0, gt=0, description="Longest time of one request to S3.")
    s3_patience_seconds: float = Field(
        default=60.0,
        ge=0,
        description="How long a request to S3 is tried again before its run fails as StoreUnavailable.",
    )

    def describe_access(self) -> dict[str, Any]:
        """Return the arguments of `optaic.storage.Access`. It reads a file.

        Raises:
            OSError: The file of the secret cannot be read.
        """
        secret, file = self.s3_secret_access_key, self.s3_secret_access_key_file
        if not secret and file is not None:
            secret = file.read_text(encoding="utf-8").rstrip("\r\n")
        return {
            "endpoint": self.s3_endpoint,
            "region": self.s3_region,
            "is_path_style": self.s3_path_style,
            "access_key_id": self.s3_access_key_id,
            "secret_access_key": secret,
            "session_token": self.s3_session_token,
            "timeout_seconds": self.s3_timeout_seconds,
            "patience_seconds": self.s3_patience_seconds,
        }

    @field_validator("s3_secret_access_key_file", mode="before")
    @classmethod
    def _empty_is_no_file(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _credential_is_whole(self) -> Self:
        """Check that an access key has its secret, and is sent to no server without TLS."""
        has_secret = bool(self.s3_secret_access_key or self.s3_secret_access_key_file)
        if bool(self.s3_access_key_id) != has_secret:
            raise ValueError(
                "OPTAIC_S3_ACCESS_KEY_ID and OPTAIC_S3_SECRET_ACCESS_KEY (or _FILE) belong together: set both, or neither"
            )
        if self.s3_endpoint and not self.s3_endpoint.startswith(("http://", "https://")):
            raise ValueError("OPTAIC_S3_ENDPOINT must begin with http:// or https://")
        if self.s3_endpoint and leaves_in_plaintext(self.s3_endpoint) and not self.insecure_plaintext:
            raise ValueError(
                "OPTAIC_S3_ENDPOINT would leave this machine without TLS: use https://, or OPTAIC_INSECURE_PLAINTEXT=true if the "
                "network encrypts by itself"
            )
        return self
