"""What exists as a file: the same bytes each time, short, and of no effect when it is applied again."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from support.instance_service import RunningInstanceService

_MOMENTUM = {"definition_name": "expression", "config": {"expression": "MOMENTUM(close, 252, 21)"}}
_SCHEMA = {
    "type": "object",
    "properties": {f"p{n}": {"type": "string", "maxLength": n + 1} for n in range(20)},
}
_FILE: dict[str, Any] = {
    "project": "desk",
    "manager": "m",
    "definitions": [
        {
            "name": "mine",
            "kind": "pipeline",
            "definition_version": {
                "version": "1.0.0",
                "code_ref": "mine.pipelines:Mine",
                "parameters_schema": _SCHEMA,
                "flow_specs": [{"flow_kind": "refresh", "is_default": True}],
            },
        }
    ],
    "instances": [
        {
            "name": "prices",
            "labels": {f"l{n}": str(n) for n in range(20)},
            "dataset": {"pipeline": {"definition_name": "mine", "config": {f"p{n}": "x" for n in range(20)}}},
        },
        {"name": "half", "dataset": {"pipeline": _MOMENTUM}, "upstreams": {"input": "prices"}},
        {"name": "kept", "dataset": {"pipeline": _MOMENTUM, "store": {"definition_name": "parquet"}},
         "schedule": {"manual": {}}, "upstreams": {"input": ["prices", "half"]}},
    ],
}  # fmt: skip


async def _optaic(service: RunningInstanceService, *arguments: str) -> tuple[int, str, str]:
    """Run a command in a process of its own: the order of its hashes is its own, too."""
    environment = {
        **os.environ,
        "OPTAIC_INSTANCE_ADDRESS": service.app.server.address,
        "OPTAIC_TOKEN": "development",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "optaic.cli", *arguments, env=environment, stdout=-1, stderr=-1
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_exports_are_equal_byte_for_byte_short_and_change_nothing(
    service: RunningInstanceService, tmp_path: Path
) -> None:
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:
        existing = await read_existing(client)
        async for _ in execute(client, make_plan(read_documents([_FILE]), existing), existing):
            pass
    exports = [await _optaic(service, "export", "--project", "desk") for _ in range(3)]
    assert exports[0][0] == 0, exports[0][2]
    assert exports[0] == exports[1] == exports[2]
    definitions, desk = yaml.safe_load_all(exports[0][1])
    # Neither the macro nor anything else that every service brings.
    assert [each["name"] for each in definitions["definitions"]] == ["mine"]
    prices, half, kept = desk["instances"]
    assert set(half["dataset"]) == {"pipeline"}
    assert kept["dataset"]["store"] == {"definition_name": "parquet", "definition_version": "1.0.0"}
    assert set(kept) == {"name", "dataset", "upstreams"}
    assert list(prices["labels"]) == sorted(prices["labels"])
    file = tmp_path / "desk.yaml"
    file.write_text(exports[0][1])
    assert await _optaic(service, "diff", "-f", str(file)) == (0, "nothing to do\n", "")


async def test_a_dry_run_reports_file_and_line_of_every_mistake(
    service: RunningInstanceService, tmp_path: Path
) -> None:
    file = tmp_path / "new.yaml"
    file.write_text(
        "project: new\nmanager: m\ninstances:\n"
        "  - name: hk\n    dataset: {pipeline: {definition_name: sp500_prices, config: {symbols: [0700]}}}\n"
        "  - name: half\n    dataset:\n      pipeline:\n        definition_name: expression\n"
        "        config: {expression: 'close /'}\n    upstreams: {input: hk}\n"
        "  - name: never\n    dataset: {pipeline: {definition_name: sp500_prices}}\n"
        "    schedule: {cron: {expression: 0 0 30 2 *}}\n"
    )
    for command in (("diff",), ("apply", "--dry-run"), ("apply",)):
        status, output, errors = await _optaic(service, *command, "-f", str(file))
        assert status == (2 if command == ("diff",) else 1)
        assert f'{file}, line 5: 0700 is a number; to make it text write "0700"' in errors
        assert f"{file}, line 10" in errors
        assert f"{file}, line 14" in errors
        assert "create      project" in output or command == ("apply",)
    assert (await service.row_counts("projects"))["projects"] == 0
