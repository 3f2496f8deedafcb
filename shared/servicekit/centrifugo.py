"""Define the settings with which services reach Centrifugo."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from servicekit.settings import TlsSettings

_LEAST_KEY = 32


class CentrifugoSettings(TlsSettings):
    """Settings of every service that publishes live messages; environment variables as for `ServiceSettings`."""

    centrifugo_url: str = Field(
        default="",
        description="Base URL of Centrifugo's HTTP API, for example http://host:8000; empty: none.",
    )
    centrifugo_api_key: str = Field(default="", repr=False, description="Key of Centrifugo's HTTP API.")
    centrifugo_timeout_seconds: float = Field(
        default=2, gt=0, description="Longest single call to Centrifugo."
    )
    centrifugo_buffer: int = Field(
        default=50_000,
        ge=1,
        description="Live messages that may wait for Centrifugo. Beyond that older messages of a channel are dropped before its newest.",
    )


class RealtimeTokenSettings(CentrifugoSettings):
    """Settings of the service that gives out tokens for live messages."""

    centrifugo_token_key: str = Field(
        default="",
        repr=False,
        description="Secret with which tokens of subscribers are signed, at least 32 characters; Centrifugo has the same as "
        "`client.token.hmac_secret_key`. Empty: no tokens are given.",
    )
    realtime_token_seconds: float = Field(
        default=300,
        ge=10,
        le=3600,
        description="How long the token of a subscriber is valid. So long a subscriber may go on whose rights were taken away.",
    )

    @model_validator(mode="after")
    def _a_key_is_long_enough(self) -> Self:
        if self.centrifugo_token_key and len(self.centrifugo_token_key) < _LEAST_KEY:
            raise ValueError(f"OPTAIC_CENTRIFUGO_TOKEN_KEY must have at least {_LEAST_KEY} characters")
        return self
