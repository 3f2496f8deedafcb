"""A worker as a program of its own, so that it can be an ordinary user's: it executes attacks and prints what came of them.

It reads `{"folder", "settings", "runs"}` as JSON from its input; each run is a list of attacks, or of a `file` or `sql`
configuration by its definition. `{data}` in an argument is the flow's own folder of data, `{run}` the run's folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from support.guardians import forkserver
from support.worker import World, running_world
from support.worker_peers import fill_composition
from worker import confining
from worker.config import Settings
from worker.confining import Means


async def _execute(world: World, number: int, asked: Any, root: Path, settings: dict[str, Any]) -> Any:
    definition = asked.get("definition", "attacking")
    instance = instance_pb2.Instance(name=f"attack-{number}", kind=instance_pb2.INSTANCE_KIND_DATASET)
    fill_composition(instance.dataset, definition, {})
    instance = world.instances.put(instance)
    run = world.runs.submit(instance, flow_pb2.FLOW_KIND_REFRESH)
    flow = f"{root}/acme/{instance.instance_id}/refresh"
    places = {"{data}": f"{flow}/data", "{run}": f"{flow}/runs/{run.run_id}", "{worker}": str(os.getpid())}
    text = json.dumps(asked.get("config", {"attacks": asked.get("attacks", [])}))
    for name, place in places.items():
        text = text.replace(name, place)
    instance.dataset.pipeline.config.update(json.loads(text))
    if asked.get("timeout"):
        instance.schedule.timeout.FromJsonString(asked["timeout"])
    begun = time.monotonic()
    ending = await world.execute(run, root, **settings)
    said = MessageToDict(run.metrics)
    return {
        "said": [said.get(f"attack.{place}", "") for place in range(len(asked.get("attacks", [])))],
        "ending": ending.outcome.name,
        "error": [run.error.type, run.error.message],
        "trace_uri": run.error.trace_uri,
        "metrics": said,
        "seconds": time.monotonic() - begun,
    }


async def _main(given: Any) -> list[Any]:
    root = Path(given["folder"]) / "data"
    settings = {**given["settings"], "run_output_folder": f"{given['folder']}/run-output"}
    if (means := given.get("means")) is not None:  # as if the machine allowed only this
        confining._found["auto", Settings.model_fields["child_uids"].default] = Means(**means)
    async with running_world() as world:
        try:
            return [
                await _execute(world, number, asked, root, settings)
                for number, asked in enumerate(given["runs"])
            ]
        finally:
            await forkserver.stop()


if __name__ == "__main__":
    os.umask(0o077)  # as careful users have it
    sys.stdout.write(json.dumps(asyncio.run(_main(json.load(sys.stdin)))) + "\n")
