"""The settings of status-service; no other module reads the environment."""

from pydantic import Field

from optaic.rules.realtime import DEFAULT_TENANT
from servicekit.centrifugo import RealtimeTokenSettings
from servicekit.settings import WatchSettings


class Settings(WatchSettings, RealtimeTokenSettings):
    """The settings that status-service adds to those of every service."""

    watch_retention_revisions: int = Field(
        default=100_000, ge=1, description="Changes kept for a watch to resume from, for each tenant."
    )
    watch_buffer: int = Field(
        default=4096,
        ge=1,
        description="Changes that may wait for one watcher; one more ends the watch as too slow.",
    )
    # More than the longest window that ListInstanceAvailability answers by default, so that all its pages can be read.
    status_history_days: float = Field(
        default=90,
        ge=31,
        le=3650,
        description="How long the changes of an instance's status are kept; 31 to 3650.",
    )
    compaction_interval_seconds: float = Field(
        default=60, gt=0, description="Time between two removals of old changes and of old history."
    )
    live_buffer: int = Field(
        default=10_000,
        ge=1,
        description="Live messages that may wait to be sent; beyond that the oldest are dropped.",
    )
    tenants: tuple[str, ...] = Field(
        default=(DEFAULT_TENANT,),
        description="JSON list: the tenants of this installation. Only with the one tenant `default`, statuses are also published on the "
        "channels `instance:<instance id>:status`, without a tenant.",
    )
