"""Define the settings with which services reach Centrifugo."""

from __future__ import annotations

from pydantic import Field

from servicekit.settings import TlsSettings


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
