"""The four services have one shape: the same thing has the same name and the same place in each of them."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from optaic.rules.events import CONSUMERS
from servicekit import errors
from servicekit.app import App

SERVICES = ("instance_service", "run_service", "lineage_service", "status_service")
KINDS_OF_ERRORS = {kind.__name__ for kind in errors.DomainError.__subclasses__()} | {"DomainError"}
ROOT = Path(__file__).parents[2] / "services"
WITH_RESOURCES = ("instance_service",)

# What comes first, in this order; a request follows it. A function that has none of the first three is free.
FIRST = ("deps", "connection", "context", "tenant_id")


def load(service: str, module: str) -> ModuleType:
    return importlib.import_module(f"{service}.{module}")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_from_its_settings(service: str) -> None:
    app = load(service, "app")
    assert service.replace("_", "-") == app.NAME
    assert inspect.iscoroutinefunction(app.build)
    assert next(iter(inspect.signature(app.build).parameters)) == "settings"
    assert inspect.signature(app.build, eval_str=True).return_annotation == App[_dependencies(service)]  # type: ignore[misc]  # known at run time
    assert list(inspect.signature(app.main).parameters) == ["stop"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_makes_none_of_the_parts_that_all_have(service: str) -> None:
    names = _names(ast.parse((ROOT / service / "app.py").read_text("utf-8")))
    assert "make_parts" in names
    common = {"Database", "Broker", "Relay", "Comparison", "Admission", "AuditTrail", "Server", "load_signer"}
    assert not names & common


@pytest.mark.parametrize("service", SERVICES)
def test_dependencies_begin_with_those_that_all_services_have(service: str) -> None:
    fields = list(inspect.signature(_dependencies(service)).parameters)
    assert fields[:4] == ["database", "clock", "ids", "signer"]


@pytest.mark.parametrize("service", SERVICES)
def test_servicers_are_named_so_and_receive_the_dependencies_first(service: str) -> None:
    module = load(service, "grpc_api")
    own = [
        kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__
    ]
    assert own
    for kind in own:
        assert kind.__name__.endswith("Servicer")
        first = next(iter(inspect.signature(kind, eval_str=True).parameters.values()))
        assert (first.name, first.annotation) == ("deps", _dependencies(service))


def _rows_of_the_table() -> dict[str, set[str]]:
    """Return the services that have each file or package, as ARCHITECTURE.md says."""
    text = (ROOT.parent / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("### A service, file by file")[2].partition("\n\nA function")[0]
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            named = cells[2].partition(";")[0].split(", ")
            name = cells[0].strip("`").removesuffix(".py")
            rows[name] = set(SERVICES) if named == ["all"] else {f"{one}_service" for one in named}
    return rows


SENTENCES = {
    "__main__.py": "Run {name} as a process (`python -m {package}`); its settings come from the environment.",
    "app.py": "Connect the parts of {name}; decide nothing.",
    "comparing.py": "Compare with the other services, so that an event that the broker lost is noticed and published again.",
    "config.py": "The settings of {name}; no other module reads the environment.",
    "consumers.py": "Pass each batch of events of one tenant to its use case, in the transaction of the consumer.",
    "conversion.py": "Convert between protobuf messages and the domain, in both directions; decide nothing.",
    "domain/errors.py": "The errors of {name}: one function for each, so that every error has one wording.",
    "events.py": "The events that {name} publishes; the use cases decide when.",
    "grpc_api.py": "The RPCs of {name}: each calls one use case.",
    "ports.py": "The ports: what {name} needs of outside systems, without the names or types of any tool.",
    "store/__init__.py": "The tables and queries of {name}; the caller opens the transaction.",
    "store/tables.py": "The tables of {name} for the queries; the migrations create them.",
    "use_cases/__init__.py": "One function for each RPC, event or task of a loop, in a transaction of its own or in that of its event.",
    "use_cases/dependencies.py": "The dependencies that every use case receives; `app` makes them once.",
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("file", SENTENCES)
def test_the_same_file_begins_with_the_same_sentence(service: str, file: str) -> None:
    path = ROOT / service / file
    if path.exists():
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        expected = SENTENCES[file].format(name=service.replace("_", "-"), package=service)
        assert text.partition("\n")[0].removesuffix(", and then to watchers.").rstrip(".") == expected.rstrip(
            "."
        )


def test_every_file_of_a_service_is_in_the_table_of_the_architecture() -> None:
    found: dict[str, set[str]] = {}
    for service in SERVICES:
        for path in (ROOT / service).iterdir():
            if path.name not in {"__init__.py", "__pycache__"}:
                name = "<tool>_adapter" if path.stem.endswith("_adapter") else path.stem
                found.setdefault(name, set()).add(service)
    assert _rows_of_the_table() == found


@pytest.mark.parametrize("service", SERVICES)
def test_consumers_are_those_of_the_shared_rules_and_their_functions_are_named_alike(service: str) -> None:
    module = load(service, "consumers")
    named = {value for name, value in vars(module).items() if name.endswith("_CONSUMER")}
    assert named == set(CONSUMERS[service.removesuffix("_service")])
    subjects = {name for name in vars(module) if name.endswith("_SUBJECTS")}
    assert subjects <= {f"{source}_SUBJECTS" for source in ("INSTANCE", "RUN", "LINEAGE", "ROLE_BINDING")}
    tree = ast.parse((ROOT / service / "consumers.py").read_text("utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    assert all(
        name.startswith("apply_") and name.endswith("_events")
        for name in functions - {"apply", "run", "_send"}
    )


@pytest.mark.parametrize("service", SERVICES)
def test_consumers_are_built_from_the_dependencies_and_the_broker(service: str) -> None:
    parameters = list(inspect.signature(load(service, "consumers").build_consumers).parameters)
    assert parameters[:2] == ["deps", "broker"]


@pytest.mark.parametrize("service", SERVICES)
def test_errors_of_a_service_are_defined_only_in_its_domain_errors(service: str) -> None:
    homes = sorted((ROOT / service / "domain").glob("*errors.py"))  # `refresh_errors.py` beside `errors.py`
    others = [path for path in sorted((ROOT / service).rglob("*.py")) if path not in homes]
    assert all(list(_errors_made(home)) for home in homes)
    assert [f"{path.name}:{line}" for path in others for line in _errors_made(path)] == []


@pytest.mark.parametrize("service", SERVICES)
def test_reads_for_clients_stand_in_the_reading_use_cases(service: str) -> None:
    calls = _calls_of_methods(ROOT / service / "grpc_api.py")
    reads = {name for name in calls if name.startswith(("Get", "List", "BatchGet", "Explain"))}
    assert reads
    assert {name for name in reads if not any(each.endswith("reading") for each in calls[name])} == set()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("use_cases/**/reading.py")), ids=str)
def test_reads_open_no_transaction(path: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not names & {"transaction", "write", "infra"}


def _calls_of_methods(path: Path) -> dict[str, set[str]]:
    """Return the names that each method of a servicer uses, itself or by another method of the class."""
    methods = {
        node.name: node
        for kind in ast.parse(path.read_text()).body
        if isinstance(kind, ast.ClassDef)
        for node in kind.body
        if isinstance(node, ast.AsyncFunctionDef)
    }
    own = {
        name: {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        for name, node in methods.items()
    }
    return {
        name: names | {each for method in names & own.keys() for each in own[method]}
        for name, names in own.items()
    }


def _errors_made(path: Path) -> Iterator[int]:
    """Yield the lines that make an error, make a kind of error, or give one with its reason to what makes it."""
    for node in ast.walk(ast.parse(path.read_text())):
        named: list[ast.expr] = []
        if isinstance(node, ast.Call):
            named = [node.func]
        elif isinstance(node, ast.ClassDef):
            named = node.bases
        elif isinstance(node, ast.Tuple) and any(isinstance(each, ast.Constant) for each in node.elts):
            named = node.elts
        for each in named:
            name = each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "")
            if name in KINDS_OF_ERRORS:
                yield each.lineno


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_defines_only_the_events_that_it_publishes(service: str) -> None:
    folder = ROOT / service
    named = {path.relative_to(folder).as_posix() for path in folder.rglob("events.py")}
    assert named == {"events.py"}
    own = {service.removesuffix("_service"), *({"definition"} if service == "instance_service" else ())}
    messages = [
        f"{node.module}.{name.name}".split(".")
        for node in ast.walk(ast.parse((folder / "events.py").read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    assert {parts[1] for parts in messages if any(part.endswith("_events_pb2") for part in parts)} <= own


@pytest.mark.parametrize("service", WITH_RESOURCES)
def test_layers_below_the_use_cases_open_no_transaction(service: str) -> None:
    found = [
        f"{path.name}:{line}"
        for path in sorted((ROOT / service / "resources").rglob("*.py"))
        for line in _transactions_opened(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("service", WITH_RESOURCES)
def test_every_use_case_has_a_transaction_of_its_own_or_that_of_its_event(service: str) -> None:
    folder = ROOT / service / "use_cases"
    heard = {
        name.name
        for node in ast.walk(ast.parse((ROOT / service / "consumers.py").read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{service}.use_cases.")
        for name in node.names
    }
    functions = {
        (path.relative_to(folder), node.name): node
        for path in sorted(folder.rglob("*.py"))
        if path.name != "dependencies.py"
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    opening = {key for key, node in functions.items() if any(_transactions_opened(node))}
    while more := {key for key in functions.keys() - opening if _names(functions[key]) & _named(opening)}:
        opening |= more
    public = {key for key in functions if not key[1].startswith("_")}
    assert {key for key in public - opening if key[1] not in heard} == set()
    modules = {path.relative_to(folder) for path in folder.rglob("*.py")}
    assert modules - {path for path, _ in public} == {
        path for path in modules if path.name in {"__init__.py", "dependencies.py"}
    }


def test_each_way_to_open_a_transaction_is_recognised() -> None:
    for text in (
        "async with deps.database.transaction(tenant_id) as connection: ...",
        "async with self._deps.database.read(tenant_id) as connection: ...",
        "await store.fetch_snapshots(deps.database, tenant_id, ids)",
        "async with deps.rehearsal.begin_nested(): ...",
        "async with connection.begin(): ...",
    ):
        function = ast.parse(f"async def change():\n    {text}")
        assert list(_transactions_opened(function)), text
    assert not list(_transactions_opened(ast.parse("await store.update_rows(connection, rows)")))


def _transactions_opened(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that open a transaction, or hold the database that does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"database", "begin", "begin_nested"}:
            yield node.lineno


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _named(keys: set[tuple[Path, str]]) -> set[str]:
    return {name for _, name in keys}


@pytest.mark.parametrize("service", SERVICES)
def test_arguments_come_in_one_order(service: str) -> None:
    found = [
        (f"{path.name}:{function.lineno} {function.name}", [each.arg for each in function.args.args])
        for path, function in _functions(service)
    ]
    assert any("deps" in names for _, names in found)
    assert {where: names for where, names in found if names != _in_order(names)} == {}


def test_another_order_of_arguments_is_noticed() -> None:
    assert _in_order(["self", "request", "deps"]) == ["self", "deps", "request"]
    assert _in_order(["connection", "deps", "tenant_id", "plan"]) == [
        "deps",
        "connection",
        "tenant_id",
        "plan",
    ]
    assert _in_order(["deps", "port", "context", "request"]) == ["deps", "context", "request", "port"]
    assert _in_order(["system", "tenant_id"]) == ["system", "tenant_id"]


def _functions(service: str) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the functions of a service, those of its store and its migrations apart."""
    folder = ROOT / service
    for path in sorted(folder.rglob("*.py")):
        if not {"store", "migrations"} & {*path.relative_to(folder).with_suffix("").parts}:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path, node


def _in_order(names: list[str]) -> list[str]:
    """Return the names of a function's arguments as they have to come."""
    if not {"deps", "connection", "context"} & {*names}:
        return names
    own = [name for name in names if name == "self"]
    first = [name for name in FIRST if name in names]
    request = ["request"] if "context" in first and "request" in names else []
    return [*own, *first, *request, *(name for name in names if name not in {*own, *first, *request})]


def _dependencies(service: str) -> type:
    found: type = load(service, "use_cases.dependencies").Dependencies
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_one_class_of_one_name_compares_with_the_other_services(service: str) -> None:
    made = {
        (path.relative_to(ROOT / service).as_posix(), node.name)
        for path in sorted((ROOT / service).rglob("*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
        and any(
            isinstance(each, ast.arg)
            and isinstance(each.annotation, ast.Name)
            and each.annotation.id == "Comparison"
            for each in ast.walk(node)
        )
    }
    assert made == {("comparing.py", "Comparing")}
    parameters = list(inspect.signature(load(service, "comparing").Comparing).parameters)
    assert parameters[:2] == ["deps", "channel"]


def _refusals_made(service: str) -> dict[str, set[str]]:
    """Return the reasons that a service gives, each with the shared rules that word it, or with the service's name."""
    found: dict[str, set[str]] = {}
    for node in ast.parse((ROOT / service / "domain" / "errors.py").read_text("utf-8")).body:
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
        shared = {ast.unparse(each.func) for each in calls}
        homes = {name for name in shared if name.startswith("refusals.")} or {service}
        for each in calls:
            if ast.unparse(each.func) in KINDS_OF_ERRORS and isinstance(each.args[0], ast.Constant):
                found.setdefault(str(each.args[0].value), set()).update(homes)
    return found


# The text says which outside system does not answer, or what the answer to a batch would hold, and each service has its own; there
# is no metadata.
OWN_TEXT = {"DEPENDENCY_UNAVAILABLE", "TOO_LARGE"}


def test_a_reason_that_several_services_give_has_one_text_and_one_set_of_metadata() -> None:
    made = [_refusals_made(service) for service in SERVICES]
    reasons = {reason for each in made for reason in each if sum(reason in other for other in made) > 1}
    assert {"FLOW_NOT_FOUND", "INSTANCE_DELETING"} <= reasons
    assert reasons >= OWN_TEXT
    homes = {
        reason: set().union(*(each.get(reason, set()) for each in made)) for reason in reasons - OWN_TEXT
    }
    assert homes == {reason: {f"refusals.{reason.lower()}"} for reason in homes}


@pytest.mark.parametrize("service", SERVICES)
def test_methods_of_servicers_name_their_arguments_alike(service: str) -> None:
    tree = ast.parse((ROOT / service / "grpc_api.py").read_text("utf-8"))
    methods = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0].isupper()
    ]
    assert methods
    for method in methods:
        names = [each.arg for each in method.args.args]
        assert names in (["self", "request", "_context"], ["self", "_request", "_context"]), method.name


@pytest.mark.parametrize("service", SERVICES)
def test_the_module_of_the_servicers_converts_nothing_itself(service: str) -> None:
    tree = ast.parse((ROOT / service / "grpc_api.py").read_text("utf-8"))
    assert not _names(tree) & {"conversion", "enum_word", "enum_number", "idempotency"}
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)] == []
