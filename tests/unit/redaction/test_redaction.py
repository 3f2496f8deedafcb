"""What is secret in a text is hidden, however it is written; what is none stays."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redaction
from redaction import has_credentials, hide_credentials, redact, redact_field, redact_urls, redact_value

SECRET = "k4n4rie"


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide only what a text shows to be secret: other tests of this process let it remember words."""
    monkeypatch.setattr("redaction._remembered", ())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://reader:k4n4rie@db.example:5432/prices",
        "could not parse 'mysql://reader:k4n4rie@db.example/prices'",
        '{"url":"amqp://reader:k4n4rie@queue"}',
        "redis://:k4n4rie@cache:6379/0",
        "ftp://reader:a/b@k4n4rie:c@files.example",
        "ftp://reader:it's k4n4rie@files.example",
        "ftp://reader@corp:k4n4rie@files.example",
        "postgresql://reader:k4n4rie",
        "https://k4n4rie@code.example/a.git",
        "zip://a.csv::https://reader:k4n4rie@files.example/a.zip",
        "postgresql%3A%2F%2Freader%3Ak4n4rie%40db.example",
        "https://blob.example/a.csv?sv=2024&sig=k4n4rie&se=2030",
        "https://s3.example/a?X-Amz-Signature=k4n4rie",
        "https://api.example/prices?api_key=k4n4rie",
        "postgresql://db.example/prices?user=reader&password=k4n4rie",
        "host=db.example password=k4n4rie dbname=prices",
        "host=db.example password='k4n4rie and more' dbname=prices",
        "{'user': 'reader', 'password': 'k4n4rie'}",
        '{"access_token": "k4n4rie"}',
        "connect(secret_key='k4n4rie')",
        "Authorization: Bearer k4n4rie.abc",
        "sent Bearer eyJhbGciOiJIUzI1NiJ9.k4n4rie.abc",
        "postgresql://reader%3Ak4n4rie@db.example",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BPWD%3Dk4n4rie%3BUID%3Dreader",
        '{"config": "{\\"password\\": \\"k4n4rie\\"}"}',
        "password: k4n4rie",
        "db_password: k4n4rie, user: reader",
        "  Password:k4n4rie\n  user: reader",
        "cannot log in (user: reader, password: k4n4rie)",
        "secret -> k4n4rie",
        "the password 'k4n4rie' was refused",
        'the password is "k4n4rie"',
        "login of reader with password k4n4rie failed",
        "the api key k4n4rie has expired",
        "api key: k4n4rie",
        "pwd=k4n4rie",
        "PWD = k4n4rie",
        "token k4n4rie is refused",
        "token: k4n4rie",
        "refused the token k4n4rie.",
        "signature: k4n4rie==",
        "DETAIL:  Failing row contains (default, prices, k4n4rie).",
        "DETAIL:  Failing row contains (default, two\nlines (of text), k4n4rie).\nCONTEXT:  a statement",
        "DETAIL:  Failing row contains (default, prices, k4n4rie and it was cut",
    ],
)
def test_credentials_are_hidden(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert "***" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:4200/api",
        "http://[::1]:4200/api",
        "nats://127.0.0.1:4222, then ask desk@example.org",
        "postgresql+psycopg://reader:${OPTAIC_SECRET_WAREHOUSE}@host:5432/prices",
        "https://files.example/a.csv?sig=${OPTAIC_SECRET_SAS}",
        "s3://bucket/prices.parquet?versionId=3",
        "zip://a.csv::https://files.example/a.zip",
        "file:///var/data/x@2/prices",
        "^[a-z][a-z0-9+.]*://([^:@/]*(:x)?@)?[^@]*$",
        "the keys are date and entity: 3 rows",
        'password authentication failed for user "reader"',
        "config.password: must be a reference like ${OPTAIC_SECRET_NAME}",
        "dataset.pipeline.config.token: is not known",
        "the secret OPTAIC_SECRET_WAREHOUSE is not set",
        "the worker's environment has no secret OPTAIC_SECRET_A1",
        "password: ${OPTAIC_SECRET_WAREHOUSE}",
        "unexpected token ')' at position 3",
        "a token is needed, and the signature does not match",
        "password is required",
        "the token expired, ask for a new token in an hour",
        "column 'password' holds no dates but texts",
        "a secret: it must be a reference",
        "def connect(password: str, token: bytes) -> None:",
        "password:\n  must be given",
    ],
)
def test_text_without_secrets_stays_unchanged(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("secret", ["w/r@o:ng ü", 'with"quote', "two\nlines"])
def test_values_of_the_environment_are_hidden_however_they_are_written(secret: str) -> None:
    environment = {"OPTAIC_SECRET_A": secret, "HOME": "/home/ada"}
    for text in (secret, quote(secret, safe=""), json.dumps(secret), repr(secret)):
        assert redact(f"/home/ada <{text}>", environment).strip("\"'") not in {text, secret}
        assert text.strip("\"'") not in redact(f"/home/ada <{text}>", environment)


def test_the_password_in_a_secret_url_is_also_hidden_separately() -> None:
    environment = {"OPTAIC_SECRET_URL": "postgresql://reader:k4n%234rie@db.example/prices"}
    assert redact("login with k4n#4rie failed", environment) == "login with *** failed"


def test_plain_data_loses_its_secrets_at_any_depth() -> None:
    given = {"a": [{"url": "ftp://u:k4n4rie@h"}], "password": "k4n4rie", "rows": 3, "none": None}
    assert redact_value(given) == {
        "a": [{"url": "ftp://u:***@h"}], "password": "***", "rows": 3, "none": None,
    }  # fmt: skip
    assert redact_field("dataset.pipeline.config.api_key", "k4n4rie") == "***"
    assert redact_field("config['db password']", "k4n4rie") == "k4n4rie", "a name with blanks is none of ours"
    assert redact_field("config.password", "${OPTAIC_SECRET_A}") == "${OPTAIC_SECRET_A}"


def test_every_value_under_the_name_of_a_secret_is_hidden() -> None:
    given = {
        "credentials": {"user": "desk", "value": SECRET, "more": [SECRET, "${OPTAIC_SECRET_A}"], "port": 7}
    }
    hidden = {"user": "***", "value": "***", "more": ["***", "${OPTAIC_SECRET_A}"], "port": 7}
    assert redact_value(given) == {"credentials": hidden}
    assert redact_field("config", given) == {"credentials": hidden}
    assert redact_field("config.credentials", given["credentials"]) == hidden
    assert redact_field("config.credentials.value", SECRET) == "***"
    assert redact_field("config.passwords[0]", SECRET) == "***"
    assert redact_field("config['api_key'].value", SECRET) == "***"


def test_only_urls_are_changed_in_stored_texts() -> None:
    text = "select * from t where token = 'a'"
    assert redact_urls(text) == text


@pytest.mark.parametrize("part", ["a", "://", "://u:", "password=", "%3A%2F%2F", "'password':'", "@://u:x"])
def test_no_text_takes_out_of_proportion(part: str) -> None:
    assert isinstance(redact(part * 50_000), str)


_PIECES = (
    *(
        "://",
        "u:",
        "pw@",
        "host",
        " ",
        "http://",
        "tok@",
        "?password=",
        "&key=abc",
        "%3A%2F%2F",
        "%3A",
        "%40",
        "\n",
    ),
    *("x" * 300, "y" * 1_100, '"', "/", "1234", ":", "@"),
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
def test_a_long_text_loses_the_same_as_a_short_one(text: str) -> None:
    whole = redact_urls(text), hide_credentials(text), has_credentials(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_WINDOW", 100)
        assert (redact_urls(text), hide_credentials(text), has_credentials(text)) == whole
