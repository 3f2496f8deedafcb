"""Define the settings and the authorization with which programs reach Prefect."""

from __future__ import annotations

import base64

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from servicekit.settings import TlsSettings

CREDENTIALS = "OPTAIC_PREFECT_API_KEY or _AUTH_STRING"  # how errors name these settings


class PrefectSettings(TlsSettings):
    """Settings of every program that reaches Prefect; environment variables as for `ServiceSettings`."""

    model_config = SettingsConfigDict(
        env_prefix="OPTAIC_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    prefect_api_url: str = Field(
        default="http://127.0.0.1:4200/api",
        description="Prefect's REST API; the program starts and runs even while Prefect is down.",
    )
    prefect_api_key: str = Field(
        default="",
        repr=False,
        description="Key for Prefect Cloud, sent as a bearer token; if empty, none is sent.",
    )
    prefect_auth_string: str = Field(
        default="",
        repr=False,
        description="PREFECT_SERVER_API_AUTH_STRING of your own Prefect server; if set, the key is not used.",
    )


class PrefectCallerSettings(PrefectSettings):
    """Settings of a service that calls Prefect's REST API itself."""

    prefect_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Longest time of one call to Prefect."
    )


def authorization(api_key: str, auth_string: str) -> dict[str, str]:
    """Return the authorization header for your own Prefect server (the text) or Prefect Cloud (the key), if either is set."""
    if auth_string:
        return {"authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"}
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
