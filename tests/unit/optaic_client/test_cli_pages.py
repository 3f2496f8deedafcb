"""`optaic open`: which page is meant, and when a browser is started."""

import sys
import webbrowser

import pytest

from optaic.cli import pages
from optaic.run.v1 import run_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices

_GATEWAY = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses at which a browser was started."""
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", f"{_GATEWAY}/")
    found: list[str] = []

    def note(url: str) -> bool:
        found.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", note)
    return found


@pytest.mark.parametrize(
    ("arguments", "path"),
    [((), ""), (("prices",), f"instances/{ID}"), (("--run", "r"), "runs/r")],
)
def test_the_address_of_a_page_is_printed(
    optaic: FakeServices, opened: list[str], arguments: tuple[str, ...], path: str
) -> None:
    optaic.on("GetRun", run_pb2.Run(run_id="r"))
    assert invoke("open", *arguments).stdout == f"{_GATEWAY}/console/{path}\n"
    assert opened == []  # nobody sits at a terminal


@pytest.mark.parametrize("only_print", [False, True])
def test_a_browser_is_started_where_there_is_a_display(
    monkeypatch: pytest.MonkeyPatch, opened: list[str], *, only_print: bool
) -> None:
    monkeypatch.setattr(pages, "_has_display", lambda: True)
    invoke("open", *(["--print"] if only_print else []))
    assert opened == ([] if only_print else [f"{_GATEWAY}/console/"])


@pytest.mark.parametrize("display", ["DISPLAY", "WAYLAND_DISPLAY", ""])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_display_needs_a_terminal(
    monkeypatch: pytest.MonkeyPatch, display: str, *, is_terminal: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert pages._has_display() == (is_terminal and bool(display))


def test_a_browser_that_does_not_start_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_has_display", lambda: True)
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert "open the address yourself" in invoke("open").stderr


def test_an_unknown_gateway_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTAIC_GATEWAY_URL")
    assert "OPTAIC_GATEWAY_URL" in invoke("open", status=7).stderr


@pytest.mark.parametrize("arguments", [("prices", "--run", "r"), ("--project", "desk")])
@pytest.mark.usefixtures("optaic")
def test_contradictions_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    invoke("open", *arguments, status=2)
