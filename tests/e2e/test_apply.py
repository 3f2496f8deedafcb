"""Definitions and instances by file, against the real services."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from support.client import connected_client
from support.polling import PATIENCE
from support.stack import RunningStack

OPTAIC = Path(sys.executable).with_name("optaic")
FILE = """
definitions:
  - name: HALF_{id}
    kind: op_macro
    definition_version:
      version: 1.0.0
      op_macro: {{parameters: [x], expression: x / 2}}
  - name: calm_{id}
    kind: pipeline
    state: deprecated
    definition_version:
      version: 1.0.0
      code_ref: support.plugins:SlowPipeline
      flow_specs: [{{flow_kind: refresh, is_default: true}}]
---
project: desk-{id}
manager: desk
instances:
  - name: backtest
    backtest:
      signals: {{primary: halved}}
      config: {{top_n: 1}}
  - name: halved
    owner: alice
    signal:
      dataset: {{pipeline: {{definition_name: expression, config: {{expression: HALF_{id}(close)}}}}}}
      contract: {{nan_policy: drop}}
    upstreams: {{input: prices}}
  - name: prices
    dataset:
      pipeline: {{definition_name: sp500_prices, config: {{symbols: [AAPL], start: 2020-01-02}}}}
      accessor: {{definition_name: field, config: {{field: close}}}}
    schedule: {{cron: {{expression: 30 16 * * 1-5, timezone: America/New_York}}}}
    freshness_policy: {{frequency: daily, grace: 7200}}
    labels: {{team: alpha}}
"""


def optaic(stack: RunningStack, *arguments: str, status: int = 0) -> str:
    finished = subprocess.run(
        [OPTAIC, *arguments],
        env={**os.environ, **stack.client_environment()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == status, finished.stderr + finished.stdout
    return finished.stdout or finished.stderr


async def test_a_file_is_applied_exported_changed_and_pruned(stack: RunningStack, tmp_path: Path) -> None:
    name = uuid.uuid4().hex[:8].upper()
    file = tmp_path / "desk.yaml"
    content = FILE.format(id=name)
    file.write_text(content)
    project = f"desk-{name}"

    dry = json.loads(optaic(stack, "apply", "-f", str(file), "--dry-run", "-o", "json"))
    names = [each["name"] for each in dry]
    assert names == [
        project,
        f"HALF_{name} 1.0.0",
        f"calm_{name} 1.0.0",
        "prices",
        "halved",
        "backtest",
        f"calm_{name} 1.0.0",
    ]
    assert optaic(stack, "apply", "-f", str(file)).count("create") == 4
    assert "nothing to do" in optaic(stack, "diff", "-f", str(file), "--prune")

    exported = tmp_path / "exported.yaml"
    exported.write_text(optaic(stack, "export", "--project", project))
    async with connected_client(stack) as client:
        project_id = (await client.projects.get(name=project)).project_id
        before = await client.instances.list(project=project_id)
        assert optaic(stack, "apply", "-f", str(exported), "--prune") == "nothing to do\n"
        after = await client.instances.list(project=project_id)
    assert [each.revision for each in after] == [each.revision for each in before]

    # Changed by file: one field of one instance, and another that goes.
    file.write_text(
        content.replace("[AAPL]", "[AAPL, MSFT]").replace(
            "primary: halved", "primary: halved, secondary: [prices]"
        )
    )
    shown = optaic(stack, "diff", "-f", str(file), status=1)
    assert 'dataset.pipeline.config.symbols[1]:  (not set) -> "MSFT"' in shown
    assert 'backtest.signals.secondary:  (not set) -> ["prices"]' in shown
    optaic(stack, "apply", "-f", str(file), "--dry-run")
    optaic(stack, "apply", "-f", str(file))
    assert "nothing to do" in optaic(stack, "diff", "-f", str(file))
    file.write_text(content.replace("manager: desk", "manager: other").replace("alice", "bob"))
    assert "is managed by 'desk'" in optaic(stack, "apply", "-f", str(file), status=1)
    file.write_text(f"project: {project}\nmanager: desk\ninstances: []\n")
    assert optaic(stack, "apply", "-f", str(file), "--prune", "--yes").count("delete") == 3
    assert "nothing to do" in optaic(stack, "diff", "-f", str(file), "--prune")
