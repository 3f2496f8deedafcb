"""URLs with credentials within messages: hidden for readers, and put back where somebody writes what was read."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from optaic.instance.v1.instance_pb2 import Instance
from redaction import has_credentials, hide_credentials
from redaction.messages import restore_credentials, texts_of, without_credentials

URL = "postgresql://reader:k4n4rie@db.example/prices"
SHOWN = "postgresql://reader:***@db.example/prices"


def _instance(config: dict[str, Any], **fields: Any) -> Instance:
    return ParseDict({**fields, "dataset": {"pipeline": {"config": config}}}, Instance())


def _config(instance: Instance) -> dict[str, Any]:
    return MessageToDict(instance.dataset.pipeline.config)


def test_texts_are_found_at_any_depth_with_their_places() -> None:
    instance = _instance({"a": [{"b": URL}], "n": 3}, labels={"k": "v"}, description="d")
    found = {each.path: each.text for each in texts_of(instance)}
    assert found == {
        ("description",): "d", ("labels", "k"): "v", ("dataset", "pipeline", "config", "a", 0, "b"): URL,
    }  # fmt: skip


def test_hiding_credentials_does_not_change_the_message_itself() -> None:
    instance = _instance({"a": [{"b": URL}], "n": 3}, description=f"from {URL}")
    shown = without_credentials(instance)
    assert _config(shown) == {"a": [{"b": SHOWN}], "n": 3}
    assert shown.description == f"from {SHOWN}"
    assert _config(instance)["a"] == [{"b": URL}]
    plain = _instance({"a": "https://files.example/a.csv"})
    assert without_credentials(plain) is plain


def test_a_redacted_text_sent_back_restores_the_credentials() -> None:
    other = URL.replace("k4n4rie", "another")
    known = _instance({"first": URL, "second": other, "third": URL + "2"})
    given = _instance({"first": SHOWN, "second": SHOWN, "moved": SHOWN + "2", "lost": SHOWN, "new": "x"})
    restore_credentials(given, known)
    assert _config(given) == {
        "first": URL, "second": other, "moved": URL + "2", "lost": SHOWN, "new": "x",
    }, "which of two is meant elsewhere, nobody can tell"  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        URL,
        SHOWN,
        "https://k4n4rie@code.example/a",
        "https://b.example/a?sig=k4n4rie",
        "s3://key:k4n4rie@bucket/a",
    ],
)
def test_credentials_in_plain_text_are_reported(text: str) -> None:
    assert has_credentials(f"see {text}, or not")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://reader:${OPTAIC_SECRET_A}@db.example/prices", "https://b.example/a?key=prices.csv",
        "http://127.0.0.1:4200/api?page=2", "mail desk@example.org or https://example.org:8080", "s3://bucket/a@b/c",
    ],
)  # fmt: skip
def test_an_ambiguous_part_of_a_url_is_not_hidden(text: str) -> None:
    assert not has_credentials(text)
    assert hide_credentials(text) == text
