"""The TLS context of the tests' HTTP clients, made once: httpx reads all certificates of the machine for each client."""

from __future__ import annotations

import functools
import ssl


@functools.cache
def shared_context() -> ssl.SSLContext:
    """Return it; the servers of tests are asked without TLS."""
    return ssl.create_default_context()
