"""Show the progress of the job on the terminal; does not know how the job works."""

import re
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from demo.stage import Stage

STYLES = {
    "READY": "green",
    "RUNNING": "cyan",
    "STALE": "yellow",
    "ERROR": "red",
    "NOT_INITIALIZED": "dim",
}
METRICS = (
    "total_return",
    "annualized_return",
    "volatility",
    "sharpe_ratio",
    "max_drawdown",
    "turnover",
    "benchmark_total_return",
)


class Screen:
    """Steps, current statuses and event counts; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=True, refresh_per_second=8, transient=False)
        self._printed = 0
        self._job: Stage | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def follow(self, job: Stage) -> None:
        """Show this job from now on."""
        self._job = job

    def refresh(self) -> None:
        """Show the job as it is now."""
        if self._job is None:
            return
        if self._console.is_terminal:
            self._live.update(self._render(self._job))
            return
        for step in self._job.steps[self._printed :]:
            if not step.is_done:
                break
            self._console.print(f"✔ {step.title}  {step.seconds:.1f} s")
            self._printed += 1

    def _render(self, job: Stage) -> RenderableType:
        steps = Table.grid(padding=(0, 1))
        for step in job.steps:
            mark: RenderableType = Text("✔", "green") if step.is_done else Spinner("dots")
            steps.add_row(mark, step.title, Text(f"{step.seconds:.1f} s" if step.is_done else "", "dim"))
        statuses = Table.grid(padding=(0, 2))
        for instance_id, name in job.names.items():
            word = job.observed.statuses.get(instance_id, "")
            statuses.add_row(name, Text(word, STYLES.get(word, "")))
        counts = ", ".join(f"{_words(kind)} {count}" for kind, count in sorted(job.observed.events.items()))
        events = Text(f"events received: {counts or 'none yet'}", "dim")
        notes = [Text(note, "dim") for note in job.notes]
        tree = Table.grid(padding=(0, 2))
        for line in job.tree:
            tree.add_row(*line)
        return Group(
            steps, tree, Panel(statuses, title="status of each instance", expand=False), *notes, events
        )


def _words(event_type: str) -> str:
    """Return the name of an event type as words: `RunCompleted` is `run completed`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", event_type).lower()


def print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    """Print the backtest's metrics as a table."""
    table = Table("metric", "value", title="momentum_backtest")
    for name in METRICS:
        table.add_row(name, f"{metrics[name]:.4f}")
    console.print(table)
