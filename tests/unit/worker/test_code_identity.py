"""The code of a plugin: a hash that moves with what the plugin would execute, and with nothing else."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from optaic.run.v1 import run_pb2
from support.plugin_packages import install_code
from worker import module_graph
from worker.code_identity import CodeIdentity, identify
from worker.code_statement import state_code
from worker.config import CodeCheck
from worker.distributions import read_commit
from worker.recipe import Plugin

REF = "acme_lab.pipelines:Ramp"
SOURCES = {
    "acme_lab/__init__.py": "from acme_lab.names import *\n",
    "acme_lab/pipelines.py": """
from typing import TYPE_CHECKING
import importlib
import json, polars
from . import curves
from .deep.er import shape as other_name
import acme_lab.plain
if TYPE_CHECKING:
    from acme_lab import only_types
else:
    import acme_lab.not_types
class Ramp:
    def run(self):
        from acme_lab import lazily
        return importlib.import_module(".by_name", "acme_lab")
""",
    "acme_lab/names/__init__.py": "__all__ = ['starred']\n",
    "acme_lab/names/starred.py": "",
    "acme_lab/names/unnamed.py": "",
    "acme_lab/curves.py": "from acme_tools import tool\n",
    "acme_lab/deep/__init__.py": "",
    "acme_lab/deep/er.py": "def shape(): ...\n",
    "acme_lab/plain.py": "from ..beyond import nothing\n",
    "acme_lab/lazily.py": "import acme_lab.pipelines\n",
    "acme_lab/by_name.py": "",
    "acme_lab/only_types.py": "",
    "acme_lab/not_types.py": "",
    "acme_lab/unused.py": "",
    "acme_lab/data.json": "{}",
    "acme_tools.py": "def tool(): ...\n",
    "acme_other/__init__.py": "",
}
EXECUTED = [
    "acme_lab/__init__.py",
    "acme_lab/pipelines.py",
    "acme_lab/names/__init__.py",
    "acme_lab/names/starred.py",
    "acme_lab/curves.py",
    "acme_lab/deep/__init__.py",
    "acme_lab/deep/er.py",
    "acme_lab/plain.py",
    "acme_lab/lazily.py",
    "acme_lab/by_name.py",
    "acme_lab/not_types.py",
    "acme_tools.py",
]


def put(folder: Path, sources: Mapping[str, str]) -> Path:
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def install(
    folder: Path,
    sources: Mapping[str, str] | None = None,
    *,
    name: str = "Acme.Lab",
    version: str = "1.4.0",
    origin: object = None,
    record: str = "",
) -> Path:
    """What an installer leaves in a folder of the path."""
    sources = SOURCES if sources is None else sources
    put(folder, sources)
    about = f"{name.replace('.', '_').lower()}-{version}.dist-info"
    lines = [f"{each},sha256=x,1" for each in sources] + ["../../../bin/acme,,"] + [record] * bool(record)
    put(
        folder / about,
        {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "RECORD": "\n".join(lines),
        },
    )
    if origin is not None:
        put(folder / about, {"direct_url.json": json.dumps(origin)})
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are installed into."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_package_is_identified_by_name_version_and_hash_without_an_import(site: Path) -> None:
    install(site)
    found = identify(REF)
    assert (found.distribution, found.version) == ("Acme.Lab", "1.4.0")
    assert len(found.hash) == 64
    assert (found.is_editable, found.is_builtin, found.git_revision) == (False, False, "")
    assert not [name for name in sys.modules if name.startswith(("acme_lab", "acme_tools"))]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_the_hash_changes_only_with_executed_code(site: Path, name: str) -> None:
    install(site)
    before = identify(REF)
    with (site / name).open("a", encoding="utf-8") as file:
        file.write("# a word\n")
    assert (identify(REF).hash != before.hash) == (name in EXECUTED)


def test_the_hash_is_the_same_wherever_and_however_the_sources_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[CodeIdentity] = []
    for place, ending in (("one/site-packages", "\n"), ("two", "\r\n")):
        folder = install(tmp_path / place)
        for each in folder.rglob("*.py"):
            each.write_bytes(each.read_bytes().replace(b"\n", ending.encode()))
            os.utime(each, (1, len(found)))
        put(folder / "acme_lab" / "__pycache__", {"pipelines.cpython-311.pyc": place})
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            found.append(identify(REF))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "name", sorted(set(SOURCES) - {"acme_tools.py", "acme_other/__init__.py", "acme_lab/data.json"})
)
def test_a_computed_name_may_be_any_module_of_the_package(site: Path, name: str) -> None:
    install(site)
    put(site, {"acme_lab/plain.py": "import importlib\nimportlib.import_module('acme_lab.' + input())\n"})
    before = identify(REF)
    with (site / name).open("a", encoding="utf-8") as file:
        file.write("# a word\n")
    assert identify(REF).hash != before.hash


def test_a_module_that_was_added_to_an_installed_package_counts(site: Path) -> None:
    install(site)
    put(site, {"acme_lab/curves.py": "from acme_lab import added\n"})
    before = identify(REF).hash
    put(site, {"acme_lab/added.py": ""})
    assert identify(REF).hash != before


def test_cyclic_and_unparsable_modules_are_hashed(site: Path) -> None:
    install(site, {"acme_lab/__init__.py": "", "acme_lab/pipelines.py": "def ("})
    broken = identify(REF)
    assert broken.hash
    put(site, {"acme_lab/pipelines.py": "\0"})
    assert identify(REF).hash not in {"", broken.hash}


@pytest.mark.parametrize(
    "code_ref", ["acme_gone:A", "acme_gone.more:A", "acme_lab.gone:A", "json.nope:A", "sys:A"]
)
def test_a_module_without_a_file_has_no_hash(site: Path, code_ref: str) -> None:
    install(site)
    assert identify(code_ref) == CodeIdentity()


def test_packages_in_one_namespace_are_distinguished(site: Path) -> None:
    install(
        site, {"acme/alpha/__init__.py": "import acme.beta.low\n", "acme/alpha/low.py": ""}, name="acme-alpha"
    )
    install(site, {"acme/beta/low.py": ""}, name="acme-beta")
    before = identify("acme.alpha:A")
    assert before.distribution == "acme-alpha"
    put(site, {"acme/beta/low.py": "x = 1\n"})
    assert identify("acme.alpha:A") == before
    beta = identify("acme.beta.low:A")
    assert (beta.distribution, bool(beta.hash)) == ("acme-beta", True)
    put(site, {"acme/alpha/__init__.py": "x = 1\n"})
    assert identify("acme.alpha:A").hash != before.hash


def test_a_package_installed_from_git_is_identified_by_its_commit(site: Path) -> None:
    install(
        site, origin={"url": "https://git.example/acme", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    )
    assert identify(REF).git_revision == "c" * 40


def run_git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The working tree of a package, committed."""
    folder = put(tmp_path / "project", {"pyproject.toml": "", "tests/acme_probe.py": ""})
    put(folder / "src", SOURCES)
    run_git(folder, "init", "-q")
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.mark.parametrize("way", ["path", "finder"])
def test_an_editable_package_is_marked_and_has_its_commit(
    site: Path, project: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    lines = {"path": f"{project}/src\n", "finder": "import __editable___acme_finder\n"}
    put(site, {"_acme.pth": lines[way]})
    origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
    install(site, {}, origin=origin, record="_acme.pth,sha256=x,1")
    monkeypatch.syspath_prepend(str(project / "src"))
    found = identify(REF)
    assert (found.distribution, found.version, found.is_editable) == ("Acme.Lab", "1.4.0", True)
    assert found.git_revision == run_git(project, "rev-parse", "HEAD")
    put(project / "src", {"acme_tools.py": "x = 1\n"})
    assert identify(REF).hash != found.hash
    monkeypatch.syspath_prepend(str(project / "tests"))
    beside = identify("acme_probe:A")
    assert beside.is_editable == (
        way == "finder"
    )  # the tests of a project are no part of what it adds to the path
    assert beside.hash


def test_a_module_without_a_package_is_hashed_with_the_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {"acme_loose.py": "import acme_beside\n", "acme_beside.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path))
    before = identify("acme_loose:A")
    assert (before.distribution, before.is_editable) == ("", False)
    put(tmp_path, {"acme_beside.py": "x = 1\n"})
    assert identify("acme_loose:A").hash != before.hash


def test_packages_of_older_installers_are_found_by_their_modules(site: Path) -> None:
    put(site, SOURCES)
    about = {"PKG-INFO": "Metadata-Version: 2.1\nName: acme-old\nVersion: 0.9\n"}
    put(site / "acme_old-0.9.egg-info", {**about, "top_level.txt": "acme_lab\nacme_tools\n"})
    before = identify(REF)
    assert (before.distribution, before.version, before.is_editable) == ("acme-old", "0.9", False)
    put(site, {"acme_tools.py": "x = 1\n"})
    assert identify(REF).hash != before.hash


def test_the_commit_is_read_of_branches_packed_detached_and_worktrees(project: Path, tmp_path: Path) -> None:
    first = run_git(project, "rev-parse", "HEAD")
    assert read_commit(project / "src" / "acme_lab") == first
    run_git(project, "pack-refs", "--all")
    assert read_commit(project) == first
    run_git(project, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    run_git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "second")
    second = run_git(tmp_path / "side", "rev-parse", "HEAD")
    assert read_commit(tmp_path / "side" / "src") == second
    run_git(project, "checkout", "-q", "--detach", second)
    assert read_commit(project) == second
    (project / ".git" / "HEAD").write_text("nonsense")
    assert not read_commit(project)
    assert not read_commit(Path("/proc"))


@pytest.mark.parametrize("name", ["delta_store", "derivation", "simple_accessor", "ml_modules"])
def test_built_in_code_reports_its_release(name: str) -> None:
    found = identify(f"worker.builtin.{name}:Any")
    assert (found.distribution, found.is_builtin) == ("optaic", True)
    assert found.version
    assert found.hash


@pytest.mark.parametrize(
    ("setting", "is_editable", "expected"),
    [
        ("auto", False, "REFUSE"),
        ("auto", True, "WARN"),
        ("refuse", False, "REFUSE"),
        ("refuse", True, "REFUSE"),
        ("warn", False, "WARN"),
        ("warn", True, "WARN"),
    ],
)
def test_editable_packages_cause_a_warning_by_default(
    site: Path,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: CodeCheck,
    *,
    is_editable: bool,
    expected: str,
) -> None:
    if is_editable:
        put(site, {"_acme.pth": f"{project}/src\n"})
        origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
        install(site, {}, origin=origin, record="_acme.pth,,")
        monkeypatch.syspath_prepend(str(project / "src"))
    else:
        install(site)
    install_code(monkeypatch, tmp_path / "registered", REF)
    (code,) = state_code(
        [
            Plugin(
                REF, definition_version_id="the-id", definition_name="acme_ramp", definition_version="1.0.0"
            )
        ],
        setting,
    )
    assert (code.definition_version_id, code.definition_name, code.definition_version) == (
        "the-id",
        "acme_ramp",
        "1.0.0",
    )
    assert (code.code_ref, code.distribution, code.distribution_version) == (REF, "Acme.Lab", "1.4.0")
    assert code.hash == identify(REF).hash
    assert run_pb2.CodeCheck.Name(code.check) == f"CODE_CHECK_{expected}"


def test_files_are_read_by_many_threads_at_once(tmp_path: Path) -> None:
    """Python 3.11 raises SystemError where two threads make syntax trees at the same time.

    They do where a collection of garbage, which making a tree causes, lets another thread go on.
    """

    def give_way(*_: object) -> None:
        time.sleep(0.0001)  # lets the other thread go on

    source = "import json\n" + "x = [" + ", ".join(f"(({n} + 1) * [2])" for n in range(3000)) + "]\n"
    paths = []
    for number in range(48):
        paths.append(tmp_path / f"m{number}.py")
        paths[-1].write_text(source, encoding="utf-8")
    gc.callbacks.append(give_way)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(
                    lambda path: module_graph._read_file(path, path.stem, is_package=False, known=()), paths
                )
            )
    finally:
        gc.callbacks.remove(give_way)
    assert {module.imports for module in found} == {("json",)}
