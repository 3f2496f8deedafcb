"""What the plugins of an earlier release make of a source. That release runs it: today's code must not be imported here."""

import json
import sys

import polars as pl

from optaic.plugins import Pipeline, PipelineContext, Store, load


def main() -> None:
    """Read each source by its pipeline, write it into its store, and print by name what the store says."""
    told = {}
    for name, case in json.load(sys.stdin).items():
        table = load(case["pipeline"], Pipeline)().run(PipelineContext(config=case["config"]))
        assert isinstance(table, pl.DataFrame)
        stored = load(case["store"], Store)({}).write(table, None, case["uri"])
        told[name] = {"digest": stored.digest, "physical_version": stored.physical_version, "uri": stored.uri}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
