"""Clients in other languages, made by the commands of docs/clients.md, call the running stack."""

import json
import shutil
import uuid
from importlib.resources import files
from pathlib import Path

import pytest

from support.clients_page import Workshop, commands_of
from support.stack import RunningStack

CLIENTS = Path(__file__).parent / "clients"
# grpcio-tools has no generator for Java; protoc itself has, and the registry of Java packages holds it.
JAVA_PROTOC = "com.google.protobuf:protoc:4.36.2:exe:linux-x86_64"
# Programs that run once are not worth compiling twice: half of the CPU time that Maven and javac took.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
EXPECTED = {"invalid": "run_id", "refused": "invalidargument", "missing": "invalidargument", "statuses": 0}


def need(*tools: str) -> None:
    """Skip the test where a tool is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def make_workshop(folder: Path, name: str) -> Workshop:
    """A workshop with the client's program in it."""
    shutil.copytree(CLIENTS / name, folder, dirs_exist_ok=True)
    return Workshop(folder)


def check(workshop: Workshop, stack: RunningStack, command: str) -> None:
    """Run the client, and check what it found."""
    project = f"client-{uuid.uuid4().hex[:8]}"
    answer = json.loads(workshop.run(f"{command} {project}", **stack.client_environment()))
    assert {"sp500_prices", "expression", "delta", "simple"} <= set(answer.pop("definitions"))
    assert answer.pop("project") == project
    for field in ("refused", "missing"):  # INVALID_ARGUMENT, InvalidArgument: each language has its way
        answer[field] = answer[field].replace("_", "").lower()
    assert answer == EXPECTED


def test_go(stack: RunningStack, tmp_path: Path) -> None:
    need("go")
    workshop = make_workshop(tmp_path, "go")
    workshop.run(commands_of("Go"))
    check(workshop, stack, "./client")


def test_typescript(stack: RunningStack, tmp_path: Path) -> None:
    need("npm", "node")
    workshop = make_workshop(tmp_path, "typescript")
    workshop.run(commands_of("TypeScript"), npm_config_audit="false", npm_config_fund="false")
    check(workshop, stack, "node build/client.js")


def test_java(stack: RunningStack, tmp_path: Path) -> None:
    need("javac", "java", "mvn")
    workshop = make_workshop(tmp_path, "java")
    options = {"JAVA_TOOL_OPTIONS": JAVA_OPTIONS}
    workshop.run(f"mvn -q -B dependency:copy -Dartifact={JAVA_PROTOC} -DoutputDirectory=tools", **options)
    (protoc,) = workshop.tools.glob("protoc-*.exe")
    protoc.chmod(0o755)
    well_known = files("grpc_tools") / "_proto"  # which protoc's own archive holds beside it
    workshop.give("protoc", f'"{protoc}" -I "{well_known}"')
    workshop.run(commands_of("Java"), **options)
    check(workshop, stack, "java -cp 'build:lib/*' Client")
