"""What a file of tokens may hold, and how it is read again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from servicekit.token_files import TokenEntry, TokenFiles, digest_of, parse_entries

DIGEST = digest_of("secret")
ADA = {"tenant": "acme", "actor": "ada"}


def files(tokens: Path | None = None, executors: Path | None = None) -> TokenFiles:
    return TokenFiles(tokens_file=tokens, executor_tokens_file=executors)


def write(path: Path, **entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({digest_of(token): entry for token, entry in entries.items()}))
    return path


def test_an_entry_without_roles_does_what_every_token_did_before_except_to_report() -> None:
    (entry,) = parse_entries(json.dumps({DIGEST: ADA})).values()
    assert entry == TokenEntry("acme", "ada", frozenset({"researcher", "maintainer"}))


def test_an_entry_has_exactly_its_roles() -> None:
    for roles in ([], ["viewer"], ["admin", "executor"]):
        (entry,) = parse_entries(json.dumps({DIGEST.upper(): {**ADA, "roles": roles}})).values()
        assert entry.roles == frozenset(roles)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "file"),
        ("[]", "file"),
        ('{"secret": {}}', "secret"),
        (json.dumps({DIGEST: {"actor": "ada"}}), "tenant"),
        (json.dumps({DIGEST: {**ADA, "tenant": "a.b"}}), "tenant"),
        (json.dumps({DIGEST: {**ADA, "tenant": 7}}), "tenant"),
        (json.dumps({DIGEST: {**ADA, "actor": ""}}), "actor"),
        (json.dumps({DIGEST: {**ADA, "actor": "a" * 201}}), "actor"),
        (json.dumps({DIGEST: {**ADA, "roles": "admin"}}), "roles"),
        (json.dumps({DIGEST: {**ADA, "roles": ["root"]}}), "roles"),
        (json.dumps({DIGEST: {**ADA, "roles": ["service"]}}), "roles"),
        (json.dumps({DIGEST: {**ADA, "role": "viewer"}}), "role"),
    ],
)
def test_the_error_for_a_wrong_file_names_the_place(content: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        parse_entries(content)


def test_a_token_of_the_executors_file_has_only_the_role_executor(tmp_path: Path) -> None:
    executors = write(tmp_path / "e.json", one={**ADA, "roles": ["executor"]})
    entry = files(executors=executors).find("one")
    assert entry is not None
    assert entry.roles == {"executor"}
    for roles in (["admin"], ["executor", "viewer"]):
        with pytest.raises(ValueError, match="OPTAIC_EXECUTOR_TOKENS_FILE"):
            files(executors=write(tmp_path / "e.json", one={**ADA, "roles": roles}))
    with pytest.raises(ValueError, match="OPTAIC_EXECUTOR_TOKENS_FILE"):
        files(executors=write(tmp_path / "e.json", one=ADA))  # without roles it would be a researcher


async def test_a_changed_file_counts_even_within_one_tick_of_its_clock(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", one=ADA)
    before = path.stat()
    read = files(path)
    write(path, two=ADA)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await read.refresh()
    assert read.find("one") is None
    assert read.find("two") is not None


@pytest.mark.parametrize("content", ["", "{", '{"x": 1}', None])
async def test_a_file_that_is_not_valid_leaves_the_earlier_tokens_in_force(
    content: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.json", one=ADA)
    read = files(path)
    path.unlink()
    if content is not None:
        path.write_text(content)
    for _ in range(2):
        with pytest.raises((ValueError, OSError), match=str(path)):
            await read.refresh()
    assert read.find("one") is not None
    write(path, two=ADA)
    await read.refresh()
    assert read.find("one") is None


async def test_one_bad_file_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    people, executors = (
        write(tmp_path / "t.json", one=ADA),
        write(tmp_path / "e.json", two={**ADA, "roles": ["executor"]}),
    )
    read = files(people, executors)
    people.write_text("{")
    write(executors)
    with pytest.raises(ValueError, match="OPTAIC_TOKENS_FILE"):
        await read.refresh()
    assert read.find("two") is None
    assert read.find("one") is not None
