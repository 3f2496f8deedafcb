"""A process of user code reads, writes, signals and traces nothing that is not its run's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optaic.expression import threads

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has namespaces and other users for a process"
)

TESTS = Path(__file__).parents[1]
NOBODY = 65534
SECRET = "k4n4rie of the state"
FILES = (
    "state/stack.json",
    "home/.ssh/id",
    "home/private/notes",
    "secrets/acme/OPTAIC_SECRET_X",
    "run-output/x.log",
)
FLOW = "11111111-1111-1111-1111-111111111111/refresh/data"
COMPUTED = f"computed 246000 values in {threads.count_threads(246_000)} threads"
TELLS = [*[("tell", what) for what in ("tmp", "home", "folder", "uid", "groups")], ("write", "{data}")]


def _find_public_python() -> str | None:
    """Return a Python like this one that every user of the machine may execute."""
    for name in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        real = Path(name).resolve()
        if real.exists() and all(each.stat().st_mode & 0o5 == 0o5 for each in (real, *real.parents)):
            return name
    return None


def _is_no_standard_library(path: str) -> bool:
    return bool(path) and (not Path(path).is_relative_to(sys.base_prefix) or "site-packages" in path)


PUBLIC_PYTHON = _find_public_python()


@dataclass(frozen=True)
class Way:
    """One kind of worker and the confinement that it can offer."""

    name: str
    python: str
    is_root: bool
    isolation: str = "auto"
    means: dict[str, bool] | None = None


def _ways() -> Iterator[Any]:
    is_root = os.geteuid() == 0
    no_root = pytest.mark.skipif(not is_root, reason="only root can become another user")
    no_python = pytest.mark.skipif(PUBLIC_PYTHON is None, reason="no other user may execute this Python")
    python = PUBLIC_PYTHON or sys.executable
    ordinary = python if is_root else sys.executable
    yield pytest.param(Way("root", sys.executable, is_root=True), id="root", marks=no_root)
    only_user = {"has_user": True, "has_namespaces": False}
    yield pytest.param(
        Way("root without namespaces", python, is_root=True, means=only_user),
        id="root-without-namespaces",
        marks=[no_root, no_python],
    )
    yield pytest.param(
        Way("ordinary user", ordinary, is_root=False),
        id="ordinary-user",
        marks=[no_python] if is_root else [],
    )


@dataclass(frozen=True)
class Place:
    """A machine with things that are not a plugin's."""

    folder: Path

    def attack(self, way: Way, *runs: Any, **settings: Any) -> list[Any]:
        """Execute runs in a worker of a kind; return what came of each."""
        given = {
            "folder": str(self.folder),
            "runs": runs,
            "means": way.means,
            "settings": {
                "child_isolation": way.isolation,
                "source_roots": [str(self.folder / "home")],
                "source_excluded": [str(self.folder / "state"), str(self.folder / "data")],
                "secrets_folder": str(self.folder / "secrets"),
                **settings,
            },
        }
        command = [way.python, "-W", "error", "-m", "support.attacked_worker"]
        if not way.is_root and os.geteuid() == 0:
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
        done = subprocess.run(
            command,
            input=json.dumps(given).encode(),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder / "home"),
                "PYTHONPATH": os.pathsep.join(
                    [
                        str(TESTS),
                        str(TESTS / "support/registered"),
                        *filter(_is_no_standard_library, sys.path),
                    ]
                ),
            },
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr.decode()
        found: list[Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def own(self, way: Way) -> None:
        """Let the worker's user own everything."""
        if os.geteuid() == 0:
            user = 0 if way.is_root else NOBODY
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user, user)


def make_place() -> Place:
    """Return a machine with things that are not a plugin's: a state, a home, secrets, and data of other flows and tenants."""
    folder = Path(tempfile.mkdtemp(prefix="optaic-attacked-"))
    folder.chmod(0o755)
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(SECRET, encoding="ascii")
        path.chmod(0o600)
    for tenant in ("acme", "other"):
        path = folder / "data" / tenant / FLOW / "part"
        path.parent.mkdir(parents=True)
        path.write_text(SECRET, encoding="ascii")
    (folder / "home/prices.csv").write_text("date,entity,close\n2024-01-02,A,1.5\n", encoding="ascii")
    with sqlite3.connect(folder / "home/prices.db") as database:
        database.execute("create table prices (date text, entity text, close real)")
        database.execute("insert into prices values ('2024-01-02', 'A', 1.5)")
    database.close()
    for name in ("prices.csv", "prices.db"):
        (folder / "home" / name).chmod(0o600)
    return Place(folder)


@dataclass(frozen=True)
class Attacked:
    """What came of all attacks on one kind of worker: it takes long to start, so all are made at once."""

    place: Place
    way: Way
    refused: list[tuple[str, str]]
    found: dict[str, Any]


@pytest.fixture(scope="module", params=[*_ways()])
def attacked(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    way, place = request.param, make_place()
    try:
        place.own(way)
        refused = list_refused(way, place.folder)
        home, state = place.folder / "home", place.folder / "state/stack.json"
        sql = {"url": f"sqlite:///{home}/prices.db", "query": "select * from prices"}
        runs: dict[str, Any] = {
            "refused": {"attacks": refused},
            "first": {"attacks": TELLS},
            "killer": {"attacks": [("kill all", ""), ("tell", "pid")] if way.means is None else []},
            "second": {"attacks": TELLS},
            "file": {"definition": "file", "config": {"url": f"{home}/prices.csv"}},
            "sql": {"definition": "sql", "config": sql},
            "state": {"definition": "file", "config": {"url": str(state), "format": "csv"}},
            "hidden": {"definition": "file", "config": {"url": f"{home}/.ssh/id", "format": "csv"}},
            "missing": {"definition": "file", "config": {"url": f"{home}/missing.csv"}},
            "state by sql": {"definition": "sql", "config": {**sql, "url": f"sqlite:///{state}"}},
            "trick": {"attacks": [("trick", "{run}/traceback.txt")]},
            "expression": {"attacks": [("compute", "")]},
        }
        found = place.attack(way, *runs.values())
        yield Attacked(place, way, refused, dict(zip(runs, found, strict=True)))
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)


def list_refused(way: Way, folder: Path) -> list[tuple[str, str]]:
    """Return the attacks of which none may succeed."""
    data = folder / "data"
    refused = [
        *[("read", f"{folder}/{name}") for name in (*FILES, "home/prices.csv", "home/prices.db")],
        ("read", f"{data}/other/{FLOW}/part"), ("list", f"{data}/other"),
        ("write", f"{data}/other/{FLOW}/part"), ("write", f"{data}/other"), ("write", str(data)),
        *[("write", f"{folder}/{name}") for name in ("", "home", "state", "run-output")],
        ("write", str(TESTS)), ("write", str(Path(json.__file__).parent)), ("write", "/etc"),
        ("link", f"{folder}/state/stack.json"), ("link", f"{folder}/home/prices.csv"),
        ("become root", ""), ("set up the kernel", ""),
        *[(what, pid) for what in ("signal", "trace") for pid in ("{worker}", str(os.getpid()))],
    ]  # fmt: skip
    if (
        way.means is None
    ):  # without namespaces a tenant's runs are one user's, and everybody sees what processes there are
        flow = f"{data}/acme/{FLOW}"
        refused += [("read", f"{flow}/part"), ("write", flow)]
        refused += [("write", "/tmp"), ("write", "/var/tmp")]  # noqa: S108 - they are attacked
        refused += [("uncover", f"{folder}/state"), ("uncover", f"{folder}/home")]
        refused += [("look at", "{worker}"), ("look at", str(os.getpid()))]
    return refused


def test_user_code_neither_reads_nor_writes_nor_reaches_what_is_not_its_runs(attacked: Attacked) -> None:
    found = attacked.found["refused"]
    assert found["ending"] == "COMPLETED", found["error"]
    said = zip(attacked.refused, found["said"], strict=True)
    assert [each for each in said if not each[1].startswith("refused")] == []


def test_user_code_has_its_own_temporary_folder_which_ends_with_the_run(attacked: Attacked) -> None:
    first, second = (attacked.found[name]["said"] for name in ("first", "second"))
    tmp, home, folder, user, groups, wrote = first
    assert tmp == home == folder
    assert not Path(tmp).exists()
    assert second[0] != tmp
    assert wrote.startswith("wrote to")
    if attacked.way.is_root:
        assert int(user) >= 1_900_000_000
        assert groups == "[]"
        assert user == second[3], "one tenant's runs are one user's"


def test_signals_to_all_processes_reach_nobody_else(attacked: Attacked) -> None:
    assert [attacked.found[name]["ending"] for name in ("killer", "second")] == ["COMPLETED"] * 2


def test_a_file_of_the_home_is_handed_over_by_the_policy_and_no_other(attacked: Attacked) -> None:
    read = [attacked.found[name] for name in ("file", "sql")]
    assert [(each["ending"], each["metrics"].get("rows")) for each in read] == [("COMPLETED", 1)] * 2, read
    refused = {name: attacked.found[name]["error"][0] for name in ("state", "hidden", "state by sql")}
    assert set(refused.values()) == {"SourceNotAllowed"}, refused
    assert attacked.found["missing"]["error"][0] == "SourceNotFound"


def _check_trick(found: Any) -> None:
    assert found["ending"] == "FAILED"
    assert not Path("/etc/optaic-attacked").exists()
    trace = Path(found["trace_uri"])
    assert not trace.is_symlink()
    assert "Traceback" in trace.read_text(encoding="utf-8")


def test_a_link_in_the_folder_of_a_run_does_not_lead_the_worker_elsewhere(attacked: Attacked) -> None:
    found = attacked.found["trick"]
    if attacked.way.means is None:  # a refresh writes to the folder of its data only
        assert found["said"][0].startswith("refused")
    else:
        _check_trick(found)


def test_data_of_a_worker_without_confinement_is_given_to_the_tenants_user() -> None:
    place, is_root = make_place(), os.geteuid() == 0
    try:
        before = Way("none", sys.executable, is_root=is_root, isolation="none")
        wrote, tricked = place.attack(
            before, {"attacks": [("write", "{data}")]}, {"attacks": [("trick", "{run}/traceback.txt")]}
        )
        assert wrote["ending"] == "COMPLETED"
        _check_trick(tricked)
        if not is_root:
            pytest.skip("only root can become another user")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            attacks = [("tell", "uid"), ("write", "{data}"), ("connect", port)]
            (found,) = place.attack(Way("root", sys.executable, is_root=True), {"attacks": attacks})
        assert found["ending"] == "COMPLETED", found["error"]
        assert found["said"][2] == "connected", "as the security page says"
        tenant = (place.folder / "data/acme").stat()
        assert tenant.st_uid == int(found["said"][0])
        assert tenant.st_mode & 0o777 == 0o700
        assert (place.folder / "data/other").stat().st_uid == 0
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)


def test_an_expression_is_computed_in_as_many_threads_as_anywhere(attacked: Attacked) -> None:
    assert attacked.found["expression"]["said"] == [COMPUTED]


def test_each_limit_ends_all_processes_of_a_run_and_names_itself() -> None:
    place, way = make_place(), Way("here", sys.executable, is_root=os.geteuid() == 0)
    limits = {
        "child_memory_bytes": 1 << 30,
        "child_cpu_seconds": 3,
        "child_processes": 40,
        "child_temporary_bytes": 64 << 20,
    }
    asked = {
        "OPTAIC_CHILD_MEMORY_BYTES": {"attacks": [("eat memory", "")]},
        "OPTAIC_CHILD_PROCESSES": {"attacks": [("fork", "")]},
        "OPTAIC_CHILD_TEMPORARY_BYTES": {"attacks": [("fill", "")]},
        "OPTAIC_CHILD_CPU_SECONDS": {"attacks": [("spin", "")]},
        "`schedule.timeout`": {"attacks": [("sleep", "600")], "timeout": "1.5s"},
        "": {"attacks": [("leave a daemon", "600"), ("compute", "")], "timeout": "600s"},
    }
    try:
        found = dict(zip(asked, place.attack(way, *asked.values(), **limits), strict=True))
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
    free = found.pop("")
    assert (free["ending"], free["metrics"]["processes_left"]) == ("COMPLETED", 1), free
    assert free["said"][1] == COMPUTED
    types = {setting: each["error"][0] for setting, each in found.items()}
    assert types == {**dict.fromkeys(types, "LIMIT_EXCEEDED"), "`schedule.timeout`": "TIMED_OUT"}, found
    for setting, each in found.items():
        assert setting in each["error"][1]
