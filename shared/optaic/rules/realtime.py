"""Name the channels of live messages; services publish to them and tokens permit them."""

DEFAULT_TENANT = "default"
# Each channel begins with the name of a namespace of the server; namespaces say how much history it keeps.
NAMESPACES = ("instance", "run")
# The claims of a token for live messages.
ISSUER = "optaic"
AUDIENCE = "optaic-realtime"
# Where a server of live messages accepts WebSockets.
_WEBSOCKET = "/connection/websocket"


def websocket_url(server_url: str) -> str:
    """Return the address to which subscribers of a server connect, from the base URL of its HTTP API."""
    scheme, _, rest = server_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{_WEBSOCKET}"


def status_channel(tenant_id: str, instance_id: str) -> str:
    """Return the channel of the status of an instance."""
    return f"instance:{tenant_id}.{instance_id}:status"


def known_status_channel(instance_id: str) -> str:
    """Return the same channel under the name without a tenant, for installations with the one tenant `default`."""
    return f"instance:{instance_id}:status"


def alerts_channel(tenant_id: str, instance_id: str) -> str:
    """Return the channel of the alerts of an instance."""
    return f"instance:{tenant_id}.{instance_id}:alerts"


def progress_channel(tenant_id: str, run_id: str) -> str:
    """Return the channel of the progress of a run."""
    return f"run:{tenant_id}.{run_id}:progress"


def is_known_by_id(tenants: tuple[str, ...], tenant_id: str) -> bool:
    """Return whether an installation with these tenants also has the channels without a tenant, for this one."""
    return tenants == (DEFAULT_TENANT,) and tenant_id == DEFAULT_TENANT


def status_channels(tenants: tuple[str, ...], tenant_id: str, instance_id: str) -> tuple[str, ...]:
    """Return every channel of the status of an instance, in an installation with these tenants; the one with the tenant comes first."""
    own = status_channel(tenant_id, instance_id)
    return (own, known_status_channel(instance_id)) if is_known_by_id(tenants, tenant_id) else (own,)
