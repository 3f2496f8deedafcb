"""The settings of lineage-service; no other module reads the environment."""

from pydantic_settings import SettingsConfigDict

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The settings that every service has; lineage-service adds none."""

    model_config = SettingsConfigDict(title="lineage-service")
