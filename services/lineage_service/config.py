"""The settings of lineage-service; no other module reads the environment."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The settings of lineage-service besides those that every service has."""

    model_config = SettingsConfigDict(title="lineage-service")

    freshness_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two looks for freshness policies that are due."
    )
    recomputation_interval_seconds: float = Field(
        default=21_600.0,
        ge=0,
        description="Time between two comparisons of the stored freshness of all flows with what follows from the facts; 0: none.",
    )
    lineage_history_days: float = Field(
        default=90.0,
        ge=1,
        le=3650,
        description="How long lineage can be shown as it was; what is older is removed.",
    )
