"""The documents name only what exists: pages, headings, files and folders."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
# A document may leave out the folders that lead to a package.
HOMES = ("shared", "services", "deploy", "third_party")
# `optaic/manager` is a label; a path within `optaic` is known by its ending.
_PACKAGES = {path.name for home in (".", *HOMES) for path in (ROOT / home).iterdir() if path.is_dir()}
# Programs write into `build`, and what is there depends on what has run.
FOLDERS = _PACKAGES - {"optaic", "build"}
ENDINGS = (".py", ".proto", ".md", ".toml", ".binpb", ".yaml")

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TREE_LINE = re.compile(r"^((?:[a-z_<>]+/)+)(?=\s{2,}|[a-z_<>/]+\s{2,})", re.MULTILINE)


def _paths(text: str) -> set[str]:
    """Return the paths that a document names in code spans, and in trees of folders."""
    spans = {span.partition(":")[0] for span in _SPAN.findall(_FENCE.sub("", text))}
    words = {span for span in spans if re.fullmatch(r"[\w.*<>/-]+", span)}
    named = {word for word in words if word.partition("/")[0] in FOLDERS and "/" in word}
    trees = {line for fence in _FENCE.findall(text) for line in _TREE_LINE.findall(fence)}
    return (
        named | trees | {word for word in words if word.endswith(ENDINGS) and not word.startswith(("*", "."))}
    )


def _exists(path: str) -> bool:
    pattern = re.sub(r"<[^>]+>", "*", path).rstrip("/")
    return any(ROOT.glob(pattern)) or any(any((ROOT / home).glob(f"**/{pattern}")) for home in HOMES)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a reader's browser gives to a page's headings."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_links_every_page() -> None:
    links = set(_LINK.findall((ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in _LINK.findall(document.read_text()):
        address, _, anchor = link.partition("#")
        if "://" in address:
            continue
        target = (document.parent / address).resolve() if address else document
        assert target.exists(), f"{document.name} links {link}, which does not exist"
        assert not anchor or anchor in _anchors(target), f"{document.name} links {link}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    missing = sorted(path for path in _paths(document.read_text()) if not _exists(path))
    assert not missing, f"{document.name} names {missing}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("`run_service/store/no_such.py: f`", "run_service/store/no_such.py"),
        ("`no_such.py`", "no_such.py"),
        ("`worker/no_such`", "worker/no_such"),
        ("```\nshared/no_such/     a folder\n```", "shared/no_such/"),
    ],
)
def test_a_path_that_does_not_exist_is_found(text: str, path: str) -> None:
    assert _paths(text) == {path}
    assert not _exists(path)
