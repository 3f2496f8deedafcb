"""Services, contracts, pages and the broker's permissions agree on events, subjects, streams and sizes."""

from collections.abc import Iterator

import pytest

from devstack.nats_accounts import SERVICES_ACCOUNT, make_accounts
from lineage_service import events as lineage_events
from lineage_service.domain.causes import MAX_CAUSES
from optaic.lineage.v1 import lineage_service_pb2
from optaic.rules import events
from run_service import events as run_events
from run_service.domain.statuses import RunStatus
from support.contract import ROOT, comments, numbers_in, words_in

PAGE = (ROOT / "docs/events.md").read_text()


def test_every_status_of_a_run_has_an_event() -> None:
    assert set(events.RUN_PARTICIPLES) == set(RunStatus)
    published = {*events.RUN_PARTICIPLES.values(), events.RUN_PROGRESSED}
    assert set(run_events._MESSAGES) == published
    for participle, message in run_events._MESSAGES.items():
        assert message.DESCRIPTOR.name == f"Run{participle.title()}"
    attached = lineage_service_pb2.AttachedRunEvent.DESCRIPTOR.oneofs_by_name["event"].fields
    assert {field.name for field in attached} == set(events.RUN_PARTICIPLES.values())


def test_the_subjects_are_those_that_consumers_have_had() -> None:
    assert events.RUN_SUBJECTS == (
        "optaic.*.run.v1.submitted.*",
        "optaic.*.run.v1.started.*",
        "optaic.*.run.v1.completed.*",
        "optaic.*.run.v1.failed.*",
        "optaic.*.run.v1.cancelled.*",
    )


@pytest.mark.parametrize("participle", sorted(run_events._MESSAGES))
def test_the_contract_states_the_subject_of_a_run_s_event(participle: str) -> None:
    comment = comments()[f"optaic.run.v1.Run{participle.title()}"]
    assert f"optaic.<tenant>.run.v1.{participle}.<instance id>" in words_in(comment)


def test_the_contract_states_the_subject_of_an_alert() -> None:
    comment = comments()["optaic.run.v1.MonitoringAlertRaised"]
    assert f"optaic.<tenant>.run.v1.{events.ALERT_RAISED}.<instance id>" in words_in(comment)
    subject = events.RUN_SUBJECTS[0].replace("submitted", events.ALERT_RAISED)
    assert subject not in events.RUN_SUBJECTS, "it moves no run to another status"


def test_the_contract_states_the_subject_of_a_wait() -> None:
    comment = comments()["optaic.run.v1.FlowWaitChanged"]
    assert f"optaic.<tenant>.run.v1.{events.FLOW_WAIT_CHANGED}.<instance id>" in words_in(comment)


@pytest.mark.parametrize("participle", sorted(run_events._REFRESH_MESSAGES))
def test_the_contract_states_the_subject_of_a_refresh_s_event(participle: str) -> None:
    message = run_events._REFRESH_MESSAGES[participle]
    comment = comments()[message.DESCRIPTOR.full_name]
    assert f"optaic.<tenant>.run.v1.{participle}.<refresh id>" in words_in(comment)


def rows() -> Iterator[tuple[str, str]]:
    """Yield the stream and the subject of each row of the page's table."""
    stream = ""
    for line in PAGE.splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and ".v1." in cells[1]:
            stream = cells[0] or stream
            yield stream, cells[1]


def test_the_page_lists_streams_and_subjects() -> None:
    listed = list(rows())
    assert {stream for stream, _ in listed} == set(events.STREAMS)
    for stream, subject in listed:
        kept = [each.removeprefix("optaic.*.").removesuffix(">") for each in events.STREAMS[stream]]
        assert any(subject.startswith(each) for each in kept)
    told = {subject.split(".")[2] for stream, subject in listed if stream == events.RUN_EVENTS}
    others = {events.ALERT_RAISED, events.FLOW_WAIT_CHANGED}
    assert told == {*run_events._MESSAGES, *run_events._REFRESH_MESSAGES, *others}


def test_each_service_may_create_its_stream_and_publish_to_it() -> None:
    users = {
        user["user"]: user for user in make_accounts(["default"], lambda _: "")[SERVICES_ACCOUNT]["users"]
    }
    for stream, subjects in events.STREAMS.items():
        service = stream.removesuffix("_EVENTS").lower()
        own = users[service]["permissions"]["publish"]["allow"]
        assert f"$JS.API.STREAM.CREATE.{stream}" in own
        assert set(subjects) <= set(own)


@pytest.mark.parametrize("event", ["lineage.v1.FlowStatusesChanged", "status.v1.InstanceStatusesChanged"])
def test_the_contracts_state_how_large_a_chunk_may_be(event: str) -> None:
    text = f"{events.CHUNK_BYTES // 1000} kB"
    assert text in comments()[f"optaic.{event}"]
    assert text in PAGE
    assert lineage_events._FULL_BYTES < events.CHUNK_BYTES


def test_the_contracts_state_how_many_causes_are_shown() -> None:
    said = comments()
    assert MAX_CAUSES in numbers_in(said["optaic.lineage.v1.FlowState.causes"])
    assert MAX_CAUSES in numbers_in(said["optaic.lineage.v1.FlowStatusChange.cause_indexes"])
    assert MAX_CAUSES in numbers_in(said["optaic.status.v1.FlowStatus.causes"])
