"""Write the files of tokens that the services of a stack read."""

import hashlib
import json
from pathlib import Path

from devstack.config import Settings
from devstack.endpoints import Endpoints
from devstack.state import State, write_private


def write_files(state: State, settings: Settings, endpoints: Endpoints) -> None:
    """Write the tokens of the tenants' workers; where people's tokens belong, make an empty file if there is none."""
    executors = {
        hashlib.sha256(token.encode()).hexdigest(): {
            "tenant": tenant,
            "actor": "worker",
            "roles": ["executor"],
        }
        for tenant, token in state.executor_tokens(settings.tenants).items()
    }
    write_private(Path(endpoints.executor_tokens_file), json.dumps(executors, indent=2) + "\n")
    people = Path(endpoints.tokens_file)
    if not people.exists():
        write_private(people, "{}\n")
