"""Define the settings with which programs reach MLflow."""

from __future__ import annotations

from pydantic import Field

from servicekit.settings import TlsSettings


class MlflowSettings(TlsSettings):
    """Settings of every program that calls MLflow's REST API; environment variables as for `ServiceSettings`."""

    mlflow_url: str = Field(
        default="http://127.0.0.1:5000",
        description="Address of MLflow; the program starts and runs even while MLflow is down.",
    )
    mlflow_token: str = Field(
        default="", repr=False, description="Bearer token for MLflow; if empty, none is sent."
    )
    mlflow_username: str = Field(
        default="", description="User name for MLflow's basic authentication; if set, the token is not used."
    )
    mlflow_password: str = Field(default="", repr=False, description="That user's password.")
    mlflow_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Longest time of one call to MLflow."
    )
