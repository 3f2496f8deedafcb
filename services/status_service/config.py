"""Settings of status-service; nothing else reads the environment."""

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The settings of status-service; each field is `OPTAIC_<NAME>` in the environment."""

    watch_retention_revisions: int = Field(
        default=100_000, ge=1, description="Changes kept for a watch to resume from, for each tenant."
    )
    watch_buffer: int = Field(
        default=4096,
        ge=1,
        description="Changes that may wait for one watcher; one more ends the watch as too slow.",
    )
    watch_poll_seconds: float = Field(
        default=0.5,
        gt=0,
        description="How soon a watch sees a change of another replica; changes of its own replica at once.",
    )
    watch_bookmark_seconds: float = Field(
        default=10,
        gt=0,
        description="A watch without a change for this time sends a message with only the revision.",
    )
    compaction_interval_seconds: float = Field(
        default=60, gt=0, description="Time between two removals of old changes."
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
