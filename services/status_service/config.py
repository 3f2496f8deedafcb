"""The settings of status-service; no other module reads the environment."""

from pydantic import Field

from servicekit.settings import WatchSettings


class Settings(WatchSettings):
    """The settings that status-service adds to those of every service."""

    watch_retention_revisions: int = Field(
        default=100_000, ge=1, description="Changes kept for a watch to resume from, for each tenant."
    )
    watch_buffer: int = Field(
        default=4096,
        ge=1,
        description="Changes that may wait for one watcher; one more ends the watch as too slow.",
    )
    # At least the longest window that ListInstanceAvailability answers by default.
    status_history_days: float = Field(
        default=90,
        ge=30,
        le=3650,
        description="How long the changes of an instance's status are kept; 30 to 3650.",
    )
    compaction_interval_seconds: float = Field(
        default=60, gt=0, description="Time between two removals of old changes and of old history."
    )
    live_buffer: int = Field(
        default=10_000,
        ge=1,
        description="Live messages that may wait to be sent; beyond that the oldest are dropped.",
    )
    centrifugo_url: str = Field(
        default="",
        description="Base URL of Centrifugo's HTTP API, for example http://host:8000; empty: none.",
    )
    centrifugo_api_key: str = Field(default="", repr=False, description="Key of Centrifugo's HTTP API.")
    centrifugo_timeout_seconds: float = Field(
        default=2, gt=0, description="Longest single call to Centrifugo."
    )
