"""Secrets go to the destinations that they are bound to, to the runs that name them, and into no output, however written."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from optaic.common.v1 import flow_pb2
from optaic.plugins import DateRange, InvalidConfig, Mode, PipelineContext, PluginError, SourceNotAllowed
from redaction import redact
from support.guardians import forkserver
from support.logs import logged_by
from support.sources import allowed
from support.web import Answer, Web, serving
from support.worker import running_world
from worker.builtin.file_source import FilePipeline
from worker.builtin.sql_source import SqlPipeline
from worker.execution import Outcome
from worker.recipe import Component, Input, PipelineRecipe, Plugin, StoredData
from worker.run_access import components_of, packages_of, secrets_for
from worker.sources.policy import SourcePolicy
from worker.sources.stored_secrets import read_secrets

CANARY = "k4n4rie/Zx+81"
NAME = "OPTAIC_SECRET_CANARY"
REFERENCE = f"${{{NAME}}}"
CSV = b"date,entity\n2024-01-02,a\n"


@contextmanager
def _web(*bindings: str, value: str = CANARY, status: int = 200, to: str = "") -> Iterator[Web]:
    """Serve on this machine, with a secret that is bound to these destinations; `{own}` is the server."""

    def answer(path: str) -> Answer:
        return (
            Answer(status=302, headers={"Location": to}) if to and path != "/end.csv" else Answer(CSV, status)
        )

    with serving(answer) as server:
        places = [binding.replace("{own}", server.host) for binding in bindings]
        with allowed({NAME: value}, {NAME: places}, private_hosts=["127.0.0.1"], http_hosts=["127.0.0.1"]):
            yield server


def _read(url: str, **options: object) -> int:
    config = {"url": url, "format": "csv", "storage_options": options}
    return FilePipeline().run(PipelineContext(config=config)).height


PLACES = [
    "{url}/a.csv?key=" + REFERENCE,
    "{url}/" + REFERENCE + "/a.csv",
    "{url}/a.csv?x=1&y=" + REFERENCE + "&z=2",
    "http://" + REFERENCE + ":x@{host}/a.csv",
    "http://u:" + REFERENCE + "@{host}/a.csv",
    "http://" + REFERENCE + "@{host}/a.csv",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "bindings",
    [
        (),
        ("https://{own}",),
        ("http://127.0.0.1",),
        ("http://127.0.0.1:1",),
        ("http://other.example",),
        ("postgresql://{own}",),
        ("definition:file",),
        ("file://",),
    ],
)
def test_a_secret_that_is_not_bound_to_the_host_is_not_sent(place: str, bindings: tuple[str, ...]) -> None:
    with _web(*bindings) as server:
        with pytest.raises(SourceNotAllowed, match=NAME) as refused:
            _read(place.replace("{url}", server.url).replace("{host}", server.host))
        assert server.asked == []
        assert f'{{"{NAME}": ["http://{server.host}"]}}' in str(refused.value)
        assert CANARY not in str(refused.value)


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_is_bound_to_the_host_is_sent(place: str) -> None:
    with _web("http://{own}") as server:
        assert _read(place.replace("{url}", server.url).replace("{host}", server.host)) == 1
        (asked,) = server.asked
        coded = base64.b64encode(f"u:{CANARY}".encode()).decode()
        assert any(form in asked for form in (CANARY, coded, base64.b64encode(CANARY.encode()).decode()[:12]))


@pytest.mark.parametrize("option", ["token", "password", "username"])
def test_a_header_with_a_secret_is_sent_to_its_host_only(option: str) -> None:
    for bindings in ((), ("http://other.example",)):
        with _web(*bindings) as server:
            with pytest.raises(SourceNotAllowed, match=NAME):
                _read(f"{server.url}/a.csv", **{option: REFERENCE})
            assert server.asked == []
    with _web("http://{own}") as server:
        assert _read(f"{server.url}/a.csv", **{option: REFERENCE}) == 1
        assert "Authorization: " in server.asked[0]


@pytest.mark.parametrize("value", [f"{CANARY}\r\nX-Evil: 1", f"{CANARY}\nHost: evil", f"{CANARY}\0"])
def test_a_secret_with_line_ends_adds_no_header(value: str) -> None:
    with _web("http://{own}", value=value) as server:
        with pytest.raises(InvalidConfig) as refused:
            _read(f"{server.url}/a.csv", token=REFERENCE)
        assert server.asked == []
        assert CANARY not in str(refused.value)
        _read(f"{server.url}/a.csv?x={REFERENCE}")
        assert "\nX-Evil" not in server.asked[0]


@pytest.mark.parametrize(
    "value", ["127.0.0.1:1", "evil.example", "u@evil.example", "evil.example/x?", "evil.example#", "[::1]"]
)
def test_a_secret_in_the_place_of_the_host_goes_where_it_is_bound_only(value: str) -> None:
    with _web("http://{own}", value=value) as server:
        with pytest.raises(PluginError) as refused:
            _read(f"http://{REFERENCE}/a.csv")
        assert refused.value.type in {"SourceNotAllowed", "InvalidConfig"}
        assert value not in str(refused.value)
        assert server.asked == []


def test_a_secret_that_changes_where_the_host_begins_goes_nowhere_else() -> None:
    with serving(lambda _: Answer(CSV)) as other, _web("http://{own}", value=f"x@{other.host}/") as server:
        assert _read(f"http://u:{REFERENCE}@{server.host}/a.csv") == 1
        assert other.asked == []


def test_a_redirect_takes_no_secret_along() -> None:
    for options in ({}, {"token": REFERENCE}):
        with serving(lambda _: Answer(CSV)) as other:
            with _web("http://{own}", to=f"{other.url}/a.csv") as server:
                query = "" if options else f"?x={REFERENCE}"
                with pytest.raises(SourceNotAllowed, match=r"not bound") as refused:
                    _read(f"{server.url}/a.csv{query}", **options)
                assert len(server.asked) == 1
            assert other.asked == []
            assert CANARY not in str(refused.value)


def test_a_redirect_on_the_same_host_keeps_the_secret() -> None:
    with _web("http://{own}", to="/end.csv") as server:
        assert _read(f"{server.url}/a.csv", token=REFERENCE) == 1
        assert "Authorization" in server.asked[1]


def test_a_redirect_to_another_place_that_is_bound_too_gets_no_header() -> None:
    with (
        serving(lambda _: Answer(CSV)) as other,
        _web("http://{own}", f"http://{other.host}", to=f"{other.url}/a.csv") as server,
    ):
        assert _read(f"{server.url}/a.csv", token=REFERENCE) == 1
        assert "Authorization" not in other.asked[0]


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://u:{REFERENCE}@db.example/x",
        f"postgresql+psycopg://{REFERENCE}@db.example/x",
        f"postgresql+psycopg://u@db.example/{REFERENCE}",
        f"postgresql+psycopg://u@db.example/x?password={REFERENCE}",
        f"postgresql+psycopg://u@db.example/x?application_name={REFERENCE}",
        f"postgresql+psycopg://u:{REFERENCE}@db.example:6543/x",
        f"mysql+pymysql://u:{REFERENCE}@db.example/x",
        REFERENCE,
    ],
)
def test_a_login_is_sent_to_its_database_only(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sa, "create_engine", lambda *_, **__: pytest.fail("it connects"))
    value = "postgresql+psycopg://u:pass-word@db.example/x" if url == REFERENCE else CANARY
    for bindings in (
        [],
        ["https://db.example"],
        ["postgresql://other.example"],
        ["postgresql://db.example:1"],
    ):
        with allowed({NAME: value}, {NAME: bindings}), pytest.raises(SourceNotAllowed, match=NAME) as refused:
            SqlPipeline().run(PipelineContext(config={"url": url, "table": "px"}))
        assert value not in str(refused.value)
        assert "pass-word" not in str(refused.value)


def _recipe(code_ref: str, name: str, **config: object) -> PipelineRecipe:
    plain = Component("worker.builtin.delta_store:DeltaStore", {})
    return PipelineRecipe(
        pipeline=Component(code_ref, config, definition_name=name), store=plain, accessor=plain, inputs=(),
        mode=Mode.FULL, date_range=DateRange(), timezone="UTC", data_date=dt.date(2024, 1, 2), base=None, contract=None,
        macros={}, operators={}, output_schema={}, guardrails=(), readers_hash="", base_readers_hash="",
        max_deleted_share=None, allow_deletion=False,
    )  # fmt: skip


FILE = "worker.builtin.typed_file_source:TypedFilePipeline"
OWN = "vendor.pipelines:Prices"
EXTERNAL = "worker.builtin.external_store:ExternalFileStore"


@pytest.mark.parametrize(
    ("code_ref", "bindings", "for_sources", "for_plugins"),
    [
        (FILE, ["https://a.example"], True, False),
        (FILE, [], False, False),
        (FILE, ["definition:prices"], False, False),
        (OWN, ["definition:prices"], False, True),
        (OWN, ["definition:other"], False, False),
        (OWN, ["https://a.example"], False, False),
        (
            "vendor.copy.worker.builtin.typed_file_source:TypedFilePipeline",
            ["https://a.example"],
            False,
            False,
        ),
    ],
)
def test_a_run_gets_the_secrets_that_it_names_and_that_are_bound(
    code_ref: str,
    bindings: list[str],
    for_sources: bool,
    for_plugins: bool,
) -> None:
    secrets = {NAME: CANARY, "OPTAIC_SECRET_UNNAMED": "another one"}
    policy = SourcePolicy(secrets={NAME: bindings, "OPTAIC_SECRET_UNNAMED": bindings})
    recipe = _recipe(code_ref, "prices", url="https://a.example/", deep={"x": [f"a{REFERENCE}b"]})
    found = secrets_for(components_of(recipe), policy, secrets)
    assert found.source_secrets == ({NAME: CANARY} if for_sources else {})
    assert found.plugin_secrets == ({NAME: CANARY} if for_plugins else {})
    assert (NAME in found.refusals) == (not found.values)
    assert CANARY not in repr(found)
    if not found.values:
        assert "OPTAIC_SOURCE_SECRETS" in found.refusals[NAME]


def _reading(pipeline: str, url: str = "https://a.example/{version}.parquet") -> PipelineRecipe:
    """Return the recipe of a run whose input lies in an external file that needs a secret."""
    store = Component(EXTERNAL, {"url": url, "storage_options": {"token": REFERENCE}})
    plain = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
    read = Input("prices", "prices", "id", 1, "", StoredData(store, plain, "", "v1"))
    return replace(_recipe(pipeline, "own"), inputs=(read,))


def test_the_secret_of_an_external_input_is_in_no_process_with_code_of_packages() -> None:
    policy = SourcePolicy(secrets={NAME: ["https://a.example", "definition:own"]})
    builtin = _reading("worker.builtin.derivation:DerivationPipeline")
    operated = replace(builtin, operators={"MINE": Plugin("vendor.operators:Mine")})
    for recipe, code in ((builtin, ""), (_reading(OWN), OWN), (operated, "vendor.operators:Mine")):
        found = secrets_for(components_of(recipe), policy, {NAME: CANARY}, beside=packages_of(recipe))
        assert found.values == (() if code else (CANARY,))
        assert list(found.refusals) == ([NAME] if code else [])
        assert code in found.refusals.get(NAME, "")


def test_the_code_of_a_store_or_accessor_counts_as_well() -> None:
    given = _reading(FILE).inputs[0]
    data = replace(given.data, accessor=Component("vendor.accessors:Own", {}))
    recipe = replace(_reading(FILE), inputs=(replace(given, data=data),))
    assert list(packages_of(recipe)) == ["vendor.accessors:Own"]


def test_secrets_belong_to_a_tenant(tmp_path: Path) -> None:
    for tenant in ("acme", "other"):
        (tmp_path / tenant).mkdir()
        (tmp_path / tenant / NAME).write_text(f"of {tenant}\n")
        (tmp_path / tenant / "OTHER").write_text("no secret")
    environment = {"OPTAIC_SECRET_ENV": "x", "OPTAIC_SERVICE_TOKEN": "y", "PATH": "z"}
    folder = str(tmp_path)
    assert read_secrets("acme", environment, folder, "acme") == {
        NAME: "of acme",
        "OPTAIC_SECRET_ENV": "x",
    }
    assert read_secrets("acme", environment, folder, "third") == {NAME: "of acme"}
    assert read_secrets("other", environment, folder, "acme") == {NAME: "of other"}
    for strange in ("..", ".", "", "a/../acme", "/etc", "../acme"):
        assert read_secrets(strange, environment, folder, "acme") == {}


def _forms(secret: str) -> dict[str, str]:
    return {
        "plain": secret,
        "percent-encoded": quote(secret, safe=""),
        "base64": base64.b64encode(secret.encode()).decode(),
        "base64 within": base64.b64encode(f"user:{secret}".encode()).decode(),
        "base64 within, later": base64.b64encode(f"user1:{secret}:x".encode()).decode(),
        "base64 of URLs": base64.urlsafe_b64encode(secret.encode()).decode(),
        "hexadecimal": secret.encode().hex(),
        "swapped case": secret.swapcase(),
        "upper case": secret.upper(),
        "lower case": secret.lower(),
        "backwards": secret[::-1],
    }


@pytest.mark.parametrize("form", _forms(CANARY))
def test_a_secret_is_hidden_in_every_usual_encoding(form: str) -> None:
    written = _forms(CANARY)[form]
    shown = redact(f"it says <{written}> here", {NAME: CANARY})
    core = written.rstrip("=")[-12:-2] if "within" in form else written
    assert core not in shown
    assert shown.startswith("it says <")
    assert shown.endswith("> here")


def _texts(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes().decode(errors="replace") for path in files}


@pytest.mark.parametrize("then", ["return", "raise"])
async def test_an_encoded_secret_shows_in_nothing_that_a_run_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setenv(NAME, CANARY)
    await forkserver.stop()  # one that runs already has the environment that it began with
    async with running_world() as world:
        dataset = world.dataset(definition="dying", how="tell encoded secrets", then=then, login=REFERENCE)
        run = world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH)
        with logged_by("worker", "debug") as log:
            ending = await world.execute(run, tmp_path, source_secrets={NAME: ["definition:dying"]})
    await forkserver.stop()
    assert (ending.outcome is Outcome.COMPLETED) == (then == "return")
    said = {"log": log.getvalue(), "run": str(run), "state of the flow run": ending.message}
    said |= _texts(tmp_path)
    for name, written in _forms(CANARY).items():
        if "within" not in name:
            assert [where for where, text in said.items() if written in text] == [], name


async def test_the_code_of_a_run_finds_no_secret_but_those_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME, CANARY)
    monkeypatch.setenv("OPTAIC_SECRET_OTHER", CANARY[::-1])
    await forkserver.stop()
    async with running_world() as world:
        dataset = world.dataset(definition="dying", how="find secrets", login=REFERENCE)
        run = world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH)
        await world.execute(run, tmp_path, source_secrets={NAME: ["https://a.example"]})
    await forkserver.stop()
    assert run.error.type == "SourceNotAllowed", run.error
    assert "definition:dying" in run.error.message
