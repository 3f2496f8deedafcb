"""`optaic admin token` writes the file that the services read."""

import json
import stat
import threading
from pathlib import Path

import pytest

from optaic.rules import access as words
from servicekit import access
from servicekit.context import TENANT_PATTERN
from servicekit.token_files import DEFAULT_ROLES, GIVEN_ROLES, TokenFiles, parse_entries
from support.command_line import invoke


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a file of tokens that is not there yet, as the services' setting does."""
    path = tmp_path / "etc" / "tokens.json"
    monkeypatch.setenv("OPTAIC_TOKENS_FILE", str(path))
    return path


def create(*arguments: str) -> str:
    return str(invoke("admin", "token", "create", *arguments).stdout).strip()


def test_the_command_line_and_the_services_have_the_same_words() -> None:
    assert set(words.ROLES) == access.ROLES
    assert set(words.GIVEN_ROLES) == GIVEN_ROLES
    assert words.DEFAULT_ROLES == DEFAULT_ROLES
    assert TENANT_PATTERN.pattern == words.TENANT_PATTERN


def test_a_made_token_is_what_the_services_admit(file: Path) -> None:
    token = create("ada", "--tenant", "acme", "--role", "researcher", "--role", "viewer")
    assert len(token) >= 40
    entry = TokenFiles(tokens_file=file, executor_tokens_file=None).find(token)
    assert entry is not None
    assert (entry.tenant_id, entry.actor, set(entry.roles)) == ("acme", "ada", {"researcher", "viewer"})
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_role_a_token_reads_only(file: Path) -> None:
    create("ada")
    (entry,) = parse_entries(file.read_text()).values()
    assert entry.roles == {"viewer"}


def test_the_list_shows_everything_but_the_tokens(file: Path) -> None:
    tokens = [create(actor, "--role", "admin") for actor in ("ada", "ben")]
    table = invoke("admin", "token", "list").stdout
    for part in ("ada", "ben", "default", "admin", "CREATED"):
        assert part in table
    rows = json.loads(invoke("admin", "token", "list", "-o", "json").stdout)
    assert [(row["actor"], row["tenant"], row["roles"]) for row in rows] == [
        ("ada", "default", ["admin"]),
        ("ben", "default", ["admin"]),
    ]
    assert all(row["created"] for row in rows)
    assert not any(token in table + json.dumps(rows) for token in tokens)
    assert file.exists()


def test_an_entry_written_by_hand_is_listed_with_the_roles_that_it_has(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(json.dumps({"ab" * 32: {"tenant": "acme", "actor": "ada"}}))
    (row,) = json.loads(invoke("admin", "token", "list", "-o", "json").stdout)
    assert row["roles"] == ["maintainer", "researcher"]


def test_a_revoked_token_is_gone_and_the_others_stay(file: Path) -> None:
    first, second = create("ada"), create("ben")
    rows = json.loads(invoke("admin", "token", "list", "-o", "json").stdout)
    (digest,) = [row["digest"] for row in rows if row["actor"] == "ada"]
    assert "ada" in invoke("admin", "token", "revoke", digest[:12]).stdout
    read = TokenFiles(tokens_file=file, executor_tokens_file=None)
    assert read.find(first) is None
    assert read.find(second) is not None


def test_a_name_of_no_token_or_of_several_revokes_none(file: Path) -> None:
    file.parent.mkdir()
    entry = {"tenant": "acme", "actor": "ada"}
    file.write_text(json.dumps({"ab" * 32: entry, "ac" * 32: entry}))
    before = file.read_bytes()
    for name, status in (("a", 1), ("b", 3), ("ad", 3), ("", 3)):
        invoke("admin", "token", "revoke", name, status=status)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("ada", "--role", "root"), "--role"),
        (("ada", "--role", "service"), "--role"),
        (("ada", "--tenant", "a.b"), "--tenant"),
        (("ada", "--tenant", ""), "--tenant"),
        (("",), "actor"),
        (("a" * 201,), "actor"),
    ],
)
def test_what_a_service_would_refuse_is_not_written(
    arguments: tuple[str, ...], named: str, file: Path
) -> None:
    assert named in invoke("admin", "token", "create", *arguments, status=2).stderr
    assert not file.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_file_that_is_not_valid_is_left_as_it_is(content: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(content)
    for arguments in (("create", "ada"), ("revoke", "x"), ("list",)):
        assert str(file) in invoke("admin", "token", *arguments, status=1).stderr
    assert file.read_text() == content


def test_a_change_keeps_the_permissions_of_the_file(file: Path) -> None:
    create("ada")
    file.chmod(0o640)
    create("ben")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert sorted(each.name for each in file.parent.iterdir()) == [".tokens.json.lock", "tokens.json"]


def test_tokens_made_at_once_are_all_kept(file: Path) -> None:
    from optaic.cli import tokens  # noqa: PLC0415 - the test calls the command as a function, in threads

    makers = [threading.Thread(target=tokens.create, args=(f"actor{number}",)) for number in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(parse_entries(file.read_text())) == 8


def test_the_error_without_a_file_and_a_stack_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTAIC_TOKENS_FILE", raising=False)
    monkeypatch.delenv("OPTAIC_STATE", raising=False)
    assert "--file" in invoke("admin", "token", "list", status=2).stderr
