"""How is the order service configured? As every service is; it has no settings of its own."""

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the order service needs to be told."""
