"""What `make up` says of the gateway: its address, or why there is none."""

from pathlib import Path

import pytest

from devstack import Settings, endpoints, report
from devstack.config import SERVICES
from devstack.endpoints import Endpoints
from devstack.state import State

PORTS = dict.fromkeys((*SERVICES, "postgres", "nats", "nats_monitor", "prefect", "mlflow", "gateway"), 1)


@pytest.mark.parametrize(
    ("is_wanted", "is_installed", "shown"),
    [
        (True, True, "gateway   http://127.0.0.1:1"),
        (True, False, "gateway   not started: its extra is not installed"),
        (False, True, ""),
    ],
)
def test_the_address_of_the_gateway_is_shown_or_why_it_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_wanted: bool, is_installed: bool, shown: str
) -> None:
    for module in (endpoints, report):
        monkeypatch.setattr(module, "has_gateway", lambda: is_installed)
    state = State(tmp_path / "state")
    state.create()
    settings = Settings(state=state.root, gateway=is_wanted)
    derived = Endpoints.derive(settings, state, PORTS, state.secrets())
    text = report.describe(derived, state)
    assert shown in text
    assert ("gateway" in text) == bool(shown)
