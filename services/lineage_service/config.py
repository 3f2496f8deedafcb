"""The service's settings; nothing else reads the environment."""

from pydantic_settings import SettingsConfigDict

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """It needs nothing beyond what every service has."""

    model_config = SettingsConfigDict(title="lineage-service")
