"""The tables of docs/instances.md list every state and every status, in the order of the contract and of severity."""

import re
from pathlib import Path

from optaic.instance.v1 import instance_pb2
from optaic.rules import statuses

PAGE = Path(__file__).parents[2] / "docs" / "instances.md"


def first_column(header: str) -> list[str]:
    """Return the words in the first column of the table whose header begins so."""
    table = PAGE.read_text().split(f"\n| {header} |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)


def test_the_page_lists_every_state() -> None:
    names = [name.removeprefix("INSTANCE_STATE_") for name in instance_pb2.InstanceState.keys()]  # noqa: SIM118 - an enum's wrapper
    assert first_column("state") == names[1:]


def test_the_page_lists_every_status_by_severity() -> None:
    assert first_column("status") == list(statuses.SEVERITY)
