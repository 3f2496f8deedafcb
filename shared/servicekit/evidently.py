"""Define the settings with which programs reach Evidently's workspace."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from servicekit.settings import TlsSettings


class EvidentlySettings(TlsSettings):
    """Settings of every program that reads or writes the workspace; environment variables as for `ServiceSettings`."""

    evidently_workspace: Path = Field(
        default=Path("workspace"),
        description="Folder of Evidently's workspace, shared by instance-service, the workers and Evidently's UI; no program "
        "creates it.",
    )
    evidently_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Longest time of one access to the workspace."
    )
