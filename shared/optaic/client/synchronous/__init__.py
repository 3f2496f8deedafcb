"""The client for programs without an event loop; its nouns are generated from those of the asynchronous client."""

from optaic.client.synchronous.client import Client

__all__ = ["Client"]
