"""OptAIC for Python: the client, the plugin base classes and the command line; holds no service logic."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optaic.client import AsyncClient, Client, word

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__", "word"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: a worker that imports a plugin needs no gRPC.
    if name in {"AsyncClient", "Client", "word"}:
        from optaic import client  # noqa: PLC0415 - the reason is above

        return getattr(client, name)
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - it costs more than all the rest

        return version("optaic")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
