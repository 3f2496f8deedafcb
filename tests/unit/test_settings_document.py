"""docs/settings.md lists every setting of every program with its default, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import devstack
import gateway.config
import instance_service.config
import lineage_service.config
import run_service.config
import status_service.config
import worker.config
from servicekit.settings import ServiceSettings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
PROGRAMS: dict[str, type[BaseSettings]] = {
    "The embedded stack": devstack.Settings,
    "Every service": ServiceSettings,
    "instance-service": instance_service.config.Settings,
    "run-service": run_service.config.Settings,
    "lineage-service": lineage_service.config.Settings,
    "status-service": status_service.config.Settings,
    "gateway": gateway.config.Settings,
    "worker": worker.config.Settings,
}


def rows(program: str) -> list[str]:
    """The lines of a program's table; what every service has stands once."""
    settings = PROGRAMS[program]
    known = ServiceSettings.model_fields if settings is not ServiceSettings else {}
    lines = []
    for name, field in settings.model_fields.items():
        if issubclass(settings, ServiceSettings) and name in known:
            continue
        default = "required" if field.is_required() else "by machine"
        if not field.is_required() and field.default_factory is None:
            default = f"`{_written(field.default)}`" if field.default not in ("", None) else "none"
        lines.append(f"| `OPTAIC_{name.upper()}` | {default} | {field.description} |")
    return lines


def _written(default: object) -> str:
    """Return a default as a user writes it: lists, objects and truth values as JSON, anything else as text."""
    return json.dumps(default) if isinstance(default, bool | tuple | dict) else str(default)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_setting_is_documented_with_its_default(program: str) -> None:
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    (section,) = [each for each in sections if each.startswith(f"{program}\n")]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows(program)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 90),
        ({"OPTAIC_START_TIMEOUT_SECONDS": "7"}, 7),
        ({"OPTAIC_START_TIMEOUT_SECONDS": "7", "OPTAIC_STACK_START_TIMEOUT_SECONDS": "8"}, 8),
    ],
)
def test_the_stack_accepts_the_former_name_of_its_start_timeout(
    environment: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPTAIC_START_TIMEOUT_SECONDS", "OPTAIC_STACK_START_TIMEOUT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert devstack.Settings().stack_start_timeout_seconds == seconds
