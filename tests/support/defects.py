"""Defects that are planted into a copy of the code, each with the test that must fail because of it.

A test that passes with the code and with the defect proves nothing of what it is named after. Run them all with
`OPTAIC_FAULTS=full python -m pytest tests/faults/test_defects.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("services", "shared")
_SECONDS = 1_800


@dataclass(frozen=True)
class Defect:
    """A small change that makes the code wrong: in a file, each first text becomes the second; and the test that notices it."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    test: str  # file::test, below the folder of all tests

    @property
    def path(self) -> Path:
        """The file, in the repository."""
        return next(ROOT / each / self.file for each in _PACKAGES if (ROOT / each / self.file).exists())

    def plant(self, text: str) -> str:
        """Return the text of the file with the defect.

        Raises:
            ValueError: The file has changed, so that the defect is nowhere or in several places; adapt the defect.
        """
        for before, after in self.changes:
            if text.count(before) != 1:
                raise ValueError(
                    f"{self.name}: {self.file} has {text.count(before)} times {before!r}, not once"
                )
            text = text.replace(before, after)
        return text


def run_with(defect: Defect, folder: Path, *, is_planted: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the test of a defect with a copy of its package, with the defect or without it."""
    package = defect.file.partition("/")[0]
    source = next(ROOT / each / package for each in _PACKAGES if (ROOT / each / package).exists())
    shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    if is_planted:
        (folder / defect.file).write_text(defect.plant(defect.path.read_text("utf-8")), "utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "OPTAIC_FAULTS"}
    environment["PYTHONPATH"] = str(folder)  # it precedes what is installed
    command = [sys.executable, "-m", "pytest", f"tests/{defect.test}", "-q", "-n0", "-p", "no:cacheprovider"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


DEFECTS = (
    Defect(
        "acknowledged before the commit",
        "servicekit/consumer.py",
        (
            (
                "        try:\n            await self._apply_in_transaction(tenant_id, [delivery",
                (
                    "        for delivery in deliveries:\n            await delivery.raw.ack()\n"
                    "        try:\n            await self._apply_in_transaction(tenant_id, [delivery"
                ),
            ),
            ("sequence.stream, None)\n                await delivery.raw.ack()", "sequence.stream, None)"),
        ),
        "integration/servicekit/test_consumer.py::test_no_event_is_dead_lettered_while_the_database_is_away",
    ),
    Defect(
        "no tenant lock",
        "servicekit/database.py",
        (("select pg_advisory_xact_lock(hashtextextended(:tenant_id, 0))", "select length(:tenant_id)"),),
        "faults/lineage_service/test_mitigations.py::test_two_concurrent_propagations_lose_no_staleness",
    ),
    Defect(
        "threads of polars wait for threads that need polars",
        "optaic/expression/threads.py",
        (("if values < _FEWEST or isinstance(threading.current_thread(), threading._DummyThread)", "if values < _FEWEST"),),
        "unit/optaic_expression/test_threads.py::test_polars_threads_never_wait_for_threads_that_need_polars",
    ),
    Defect(
        "a revision has the time before the wait for the tenant's lock",
        "servicekit/database.py",
        (("await connection.execute(_LOCK_TENANT,", "await send(connection, _LOCK_TENANT,"),),
        "integration/lineage_service/test_history.py::test_a_revision_has_the_time_after_the_wait_for_the_tenants_lock",
    ),
    Defect(
        "what was sent in a savepoint outlives it",
        "servicekit/direct.py",
        (("            self._direct.sent.clear()\n", "            pass\n"),),
        "integration/servicekit/test_direct.py::test_what_was_sent_in_a_savepoint_is_undone_with_it",
    ),
    Defect(
        "older revisions are taken",
        "status_service/domain/board.py",
        (("self.is_deleted or self.position > other.position", "True"),),
        "unit/status_service/test_board.py::test_duplicates_and_any_order_give_the_same_state",
    ),
    Defect(
        "times are compared instead of run numbers",
        "lineage_service/domain/runs.py",
        (
            (
                "if fact.phase is Phase.COMPLETED and number > progress.completed_run_number:",
                "if fact.phase is Phase.COMPLETED and fact.submit_time == progress.last_run_time:",
            ),
        ),
        "unit/lineage_service/test_flows.py::test_progress_is_a_function_of_the_set_of_events",
    ),
    Defect(
        "a scheduled time is run twice",
        "run_service/use_cases/adoption.py",
        (("    if taken is not None:\n", "    if False:\n"),),
        "integration/run_service/test_schedule.py::test_a_scheduled_time_is_run_once",
    ),
    Defect(
        "a version moves although the content is equal",
        "lineage_service/store/versions.py",
        (("in ('', {run}.readers_hash)), false)", "in ('', {run}.readers_hash)), false) and false"),),
        "integration/lineage_service/test_ranges_and_readers.py"
        "::test_the_first_digest_of_a_later_release_moves_no_version_of_equal_content",
    ),
    Defect(
        "staleness spreads one level only",
        "lineage_service/store/propagation.py",
        (
            (
                ("        where (select f.is_fresh from flows f where f.tenant_id = :tenant_id and f.flow_id = d.flow_id)\n"
                "    )\n    select root"),
                "        where false\n    )\n    select root",
            ),
        ),
        "integration/lineage_service/test_recomputation.py"
        "::test_a_wrong_row_is_repaired_and_what_changes_by_that_is_published",
    ),
    Defect(
        "a late event resurrects a deleted instance",
        "lineage_service/store/flows.py",
        (("where not instances.is_deleted and (excluded", "where (excluded"), ("excluded.revision > instances.revision\n", "true\n")),
        "faults/lineage_service/test_mitigations.py::test_a_late_event_cannot_resurrect_a_deleted_flow",
    ),
    Defect(
        "lateness never counts",
        "lineage_service/domain/freshness.py",
        (('return "" < last_data_date < expected_data_date', "return False"),),
        "unit/lineage_service/test_histories.py::test_histories_of_twenty_flows",
    ),
    Defect(
        "an accepted version is ignored",
        "lineage_service/domain/flows.py",
        (
            (
                "return self.consumed_version if self.accepted_version is None else self.accepted_version",
                "return self.consumed_version",
            ),
        ),
        "unit/lineage_service/test_acceptance.py::test_freshness_is_compared_with_the_accepted_version_if_there_is_one",
    ),
    Defect(
        "a run of a range clears a cause",
        "lineage_service/domain/runs.py",
        (
            (
                "Phase.COMPLETED and not fact.is_partial_range and number > progress.full_run_number",
                "Phase.COMPLETED and number > progress.full_run_number",
            ),
        ),
        "unit/lineage_service/test_ranges.py::test_only_a_completed_run_of_all_dates_ends_the_partial_state",
    ),
    Defect(
        "an outbox row is deleted before the broker has acknowledged it",
        "servicekit/relay.py",
        (("zip(rows, acknowledged, strict=True) if is_done]", "zip(rows, acknowledged, strict=True)]"),),
        "integration/servicekit/test_relay.py::test_an_event_that_the_broker_refuses_does_not_delay_other_events",
    ),
    Defect(
        "a watch that resumes skips a change",
        "status_service/use_cases/watching.py",
        (
            (
                "        while changes := await self._read(tenant_id, position):\n            position",
                "        while changes := (await self._read(tenant_id, position))[1:]:\n            position",
            ),
        ),
        "integration/status_service/test_watch.py::test_every_watcher_sees_every_change_once_in_order_without_gaps",
    ),
    Defect(
        "the digest ignores a day",
        "worker/builtin/day_digests.py",
        (("for each in self.by_day.values():", "for each in list(self.by_day.values())[1:]:"),),
        "unit/worker_builtin/test_day_digests.py::test_different_content_has_different_digests",
    ),
    Defect(
        "the report of an executor that has lost the run is accepted",
        "run_service/domain/executors.py",
        (("    if holder != token:", "    if not holder and token:"),),
        "integration/run_service/test_reports.py::test_reports_with_another_fencing_token_are_refused",
    ),
    Defect(
        "an event that comes twice is applied twice",
        "servicekit/consumer.py",
        (("                if item.event.event_id in new:\n", "                if True:\n"),),
        "integration/servicekit/test_consumer.py::test_repeated_and_reordered_events_are_applied_once_each",
    ),
    Defect(
        "a scheduled time does not wait for the work above it",
        "run_service/domain/upstream_waits.py",
        (("        if planned <= scheduled_time:", "        if planned < scheduled_time:"),),
        "unit/run_service/test_upstream_waits.py::test_one_upstream_decides_by_its_readiness_and_its_work",
    ),
    Defect(
        "a flow that follows any upstream flow forgets that one has moved",
        "run_service/domain/auto_refresh.py",
        (("facts.mode is Mode.ANY_UPSTREAM and facts.has_moved and not facts.misses_input", "False"),),
        "unit/run_service/test_auto_refresh.py::test_every_history_comes_to_rest_with_nothing_left_to_follow",
    ),
    Defect(
        "a refresh submits a run beside the one that is active",
        "run_service/domain/refreshing.py",
        (("    if planned.active_run_id:\n", "    if False:\n"),),
        "unit/run_service/test_refreshing.py::test_active_run_is_joined_and_not_submitted",
    ),
    Defect(
        "a version that does not say which dates have changed is taken for unchanged",
        "lineage_service/domain/increments.py",
        (("    if change.consumed_version != upstream.version and not change.is_known:", "    if False:"),),
        "unit/lineage_service/test_increments.py::test_each_condition_alone_is_enough_to_compute_everything",
    ),
    Defect(
        "a recomputation believes what is stored",
        "lineage_service/domain/recomputation.py",
        (("return flow.is_fresh is is_fresh", "return True"),),
        "integration/lineage_service/test_recomputation.py"
        "::test_a_wrong_row_is_repaired_and_what_changes_by_that_is_published",
    ),
    Defect(
        "a live message that failed is sent again after a later one of its channel",
        "servicekit/outlet.py",
        ((" and each.number > taken.get(each.key, 0):", ":"),),
        "unit/servicekit/test_outlet.py::test_whatever_the_server_does_each_channel_is_in_order_and_ends_with_its_newest",
    ),
    Defect(
        "a live message is dropped because Centrifugo failed for a moment",
        "servicekit/centrifugo_adapter.py",
        (("_PASSING = frozenset({100, 111})", "_PASSING = frozenset[int]()"),),
        "integration/servicekit/test_centrifugo_answers.py::test_an_error_within_an_answer_concerns_its_own_command",
    ),
    Defect(
        "a move of data removes files without a look at whether it is still the move",
        "optaic/moving/copying.py",
        (("            self._go_on()\n            self._permit()\n", "            self._go_on()\n"),),
        "unit/optaic_client/test_cli_moving.py"
        "::test_nothing_is_removed_or_switched_once_another_call_has_changed_the_move",
    ),
    Defect(
        "a sweep of leftovers takes the data of a flow that has an active run",
        "worker/leftovers/outputs.py",
        (("for run in runs.values() if run.status not in _ENDED}", "for run in runs.values() if False}"),),
        "integration/storage/test_leftovers.py::test_nothing_of_a_flow_goes_that_has_an_active_run",
    ),
    Defect(
        "a status of a later release counts as an end",
        "worker/leftovers/outputs.py",
        (("if run.status not in _ENDED}", "if run.status in {1, 2}}"),),
        "integration/storage/test_leftovers.py::test_a_status_of_a_later_release_may_be_that_of_an_active_run",
    ),
    Defect(
        "a sweep of leftovers takes the data of a table that has lost its log",
        "worker/leftovers/delta_log.py",
        (("    if committed > last:\n", "    if False:\n"),),
        "integration/storage/test_leftover_versions.py"
        "::test_nothing_of_a_table_goes_whose_log_lost_what_runs_have_recorded",
    ),
    Defect(
        "a log that its checkpoints outlive counts as whole",
        "worker/leftovers/delta_log.py",
        (("known.entries - 1, _find_newest(paths, read))", "known.entries - 1)"),),
        "integration/storage/test_leftover_versions.py"
        "::test_nothing_of_a_table_goes_whose_log_tells_of_entries_that_are_lost",
    ),
    Defect(
        "a log that was restored and written on is believed to be the one that was read",
        "worker/leftovers/delta_log.py",
        (("        first = 0 ", "        pass "),),
        "unit/worker/test_leftover_logs.py::test_a_log_that_was_restored_and_written_on_is_read_anew",
    ),
    Defect(
        "a sweep of leftovers takes the data of a version that has lost its manifest",
        "worker/leftovers/versions.py",
        (("""elif f"{version}/{naming.MANIFEST}" not in paths:""", "elif False:"),),
        "integration/storage/test_leftover_versions.py"
        "::test_nothing_goes_where_the_manifest_of_a_completed_run_is_lost",
    ),
    Defect(
        "a sweep of leftovers takes the files of runs that a restored database lacks",
        "worker/leftovers/sweeping.py",
        (("in naming.list_runs(paths) if each > newest", "in naming.list_runs(paths) if False"),),
        "integration/storage/test_leftovers.py::test_nothing_goes_where_the_record_of_the_newest_run_is_lost",
    ),
    Defect(
        "the age of a leftover is that by the clock of the worker",
        "worker/leftovers/sweeping.py",
        (("await asyncio.to_thread(storage.now_at, self._folder) - MARGIN", "datetime.now().astimezone() - MARGIN"),),
        "integration/storage/test_leftovers.py::test_a_clock_of_the_worker_that_is_wrong_removes_nothing",
    ),
    Defect(
        "a late writer does not look whether its data is still there",
        "worker/builtin/parquet_store.py",
        (("        if not self._has(name):\n", "        if False:\n"),),
        "integration/storage/test_publishing.py"
        "::test_a_late_writer_whose_answer_was_lost_withdraws_its_version",
    ),
    Defect(
        "a named flow run overtakes those that wait",
        "worker/executor.py",
        (
            (
                "if self._is_stopping or self._may_others_wait or not self._has_room():",
                "if self._is_stopping or not self._has_room():",
            ),
        ),
        "unit/worker/test_named_runs.py"
        "::test_a_named_flow_run_is_claimed_only_if_nothing_speaks_against_it",
    ),
    Defect(
        "a flow run whose name comes late is taken a second time",
        "worker/executor.py",
        (("if named.flow_run_id in self._begun or named.flow_run_id in self._named:", "if False:"),),
        "unit/worker/test_named_runs.py::test_a_name_told_twice_is_claimed_once",
    ),
    Defect(
        "a view of the work pool counts for ever",
        "worker/named_runs.py",
        (("time.monotonic() - self._view_time <= _VALID_SECONDS and queue_id", "queue_id"),),
        "unit/worker/test_named_runs.py"
        "::test_a_named_flow_run_is_claimed_only_if_nothing_speaks_against_it",
    ),
    Defect(
        "a flow run of an earlier look is claimed although it has ended",
        "worker/executor.py",
        (("for flow_run in self._found if flow_run.id in waiting)", "for flow_run in self._found)"),),
        "unit/worker/test_looks.py"
        "::test_a_flow_run_that_another_worker_took_or_ended_meanwhile_is_not_claimed",
    ),
    Defect(
        "a claim does not look at what it took",
        "worker/prefect_adapter.py",
        (
            ("if time is None:\n            raise FlowRunNot", "if False:\n            raise FlowRunNot"),
            ("if time > max(claimed", "if time is not None and time > max(claimed"),
        ),
        "integration/worker/test_claims.py"
        "::test_a_flow_run_that_has_ended_is_no_longer_listed_and_its_claim_is_undone",
    ),
)  # fmt: skip
