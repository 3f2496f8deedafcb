"""Settings of status-service; nothing else reads the environment."""

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Each field is `OPTAIC_<NAME>` in the environment."""

    watch_retention_revisions: int = Field(
        default=100_000, ge=1, description="Changes kept for a watch to resume from, for each tenant."
    )
    watch_buffer: int = Field(
        default=4096, ge=1, description="Changes that wait for one watcher; one more ends it as too slow."
    )
    watch_poll_seconds: float = Field(
        default=0.5,
        gt=0,
        description="How soon a change applied by another replica is seen; own ones at once.",
    )
    watch_bookmark_seconds: float = Field(
        default=10,
        gt=0,
        description="A watch that has had nothing to tell for so long gets a message with only the revision.",
    )
    compaction_interval_seconds: float = Field(
        default=60, gt=0, description="Time between two looks for changes that need not be kept."
    )
    live_buffer: int = Field(
        default=10_000, ge=1, description="Live messages that wait to be sent; the oldest are dropped beyond."
    )
    centrifugo_url: str = Field(
        default="",
        description="Base URL of Centrifugo's HTTP API, for example http://host:8000; empty: none.",
    )
    centrifugo_api_key: str = Field(default="", repr=False, description="Key of Centrifugo's HTTP API.")
    centrifugo_timeout_seconds: float = Field(
        default=2, gt=0, description="Longest single call to Centrifugo."
    )
