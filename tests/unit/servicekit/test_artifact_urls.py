"""A URL of a file names this file only, and nobody without the key can make or change one."""

import base64
import json

import pytest

from servicekit.artifact_urls import PATH, ArtifactUrls, ArtifactUrlSettings, SignedFile
from servicekit.signing import ForgedError, Signer

KEY = "k" * 32
FILE = SignedFile(
    "curve", "file:///data/acme/i/backtest/runs/r/curve.parquet", 7, "ab" * 32, "application/parquet", 1.5
)


def sealed() -> str:
    return ArtifactUrls(KEY).sign("http://gateway:1/", FILE).removeprefix(f"http://gateway:1{PATH}")


def test_a_signed_url_names_its_file() -> None:
    assert ArtifactUrls(KEY).open(sealed()) == FILE


def test_each_changed_character_is_noticed() -> None:
    text = sealed()
    for at in range(len(text) - 1):  # the last one may hold bits that count for nothing
        other = "A" if text[at] != "A" else "B"
        with pytest.raises(ForgedError):
            ArtifactUrls(KEY).open(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "A", "%", "ä", "A" * 5000, "../../etc/passwd"])
def test_what_was_never_signed_is_refused(text: str) -> None:
    with pytest.raises(ForgedError):
        ArtifactUrls(KEY).open(text)


def test_another_key_and_another_purpose_are_refused() -> None:
    with pytest.raises(ForgedError):
        ArtifactUrls("x" * 32).open(sealed())
    payload = base64.urlsafe_b64decode(sealed() + "==")[16:]
    with pytest.raises(ForgedError):
        ArtifactUrls(KEY).open(Signer(KEY.encode()).seal(payload, "page"))


def test_a_url_of_a_later_release_is_refused_and_no_fault() -> None:
    urls = ArtifactUrls(KEY)
    with pytest.raises(ForgedError):
        urls.open(urls._signer.seal(json.dumps({"later": 1}).encode(), "artifact"))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        ArtifactUrlSettings(artifact_url_key="short")
