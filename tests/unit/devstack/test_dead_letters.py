"""The command line for dead letters refuses what could mean more than somebody meant."""

import pytest

from devstack.dead_letters import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "--yes"],
        ["replay", "--yes", "--consumer", ""],
        ["replay", "--yes", "--consumer", ">"],
        ["replay", "--yes", "--consumer", "*"],
        ["replay", "--yes", "--consumer", "status.events"],
        ["replay", "--yes", "--all", "7"],
        ["replay", "--yes", "0"],
        ["replay", "--yes", "seven"],
        ["replay", "--yes", "9" * 30],
        ["list", "--consumer", ""],
        ["show"],
    ],
    ids=" ".join,
)
def test_an_unclear_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err
