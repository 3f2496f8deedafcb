"""A sealed trail verifies, and every change, gap or insertion is found."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.audit.v1.audit_pb2 import AuditEntry, AuditSeal
from optaic.rules.audit import Verification, merkle_root, seal_hash
from servicekit.audit.sealing import seal

Trail = list[tuple[AuditSeal, list[AuditEntry]]]


def make_trail(batches: list[list[bytes]], tenant_id: str = "acme") -> Trail:
    trail: Trail = []
    head = AuditSeal()
    for batch in batches:
        records = [(tenant_id, str(index), content) for index, content in enumerate(batch)]
        ((_, made),), sequences = seal(records, {tenant_id: head})
        entries = [
            AuditEntry(content=content, sequence=sequence)
            for content, (_, _, sequence) in zip(batch, sequences, strict=True)
        ]
        trail.append((made, entries))
        head = made
    return trail


def verify(trail: Trail, tenant_id: str = "acme") -> Verification:
    verification = Verification(tenant_id)
    for one, entries in trail:
        verification.check(one, entries)
    return verification


def root_of_the_rfc(contents: list[bytes]) -> bytes:
    """Return the root as RFC 6962 defines it, from the top."""
    if not contents:
        return hashlib.sha256(b"").digest()
    if len(contents) == 1:
        return hashlib.sha256(b"\x00" + contents[0]).digest()
    split = 1
    while split * 2 < len(contents):
        split *= 2
    left, right = root_of_the_rfc(contents[:split]), root_of_the_rfc(contents[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(st.lists(st.binary(max_size=20), max_size=70))
def test_the_root_is_that_of_the_rfc(contents: list[bytes]) -> None:
    assert merkle_root(contents) == root_of_the_rfc(contents)


@given(st.lists(st.lists(st.binary(max_size=8), min_size=1, max_size=5), max_size=6))
def test_an_untouched_trail_is_intact(batches: list[list[bytes]]) -> None:
    verification = verify(make_trail(batches))
    assert verification.problems == []
    assert verification.records == sum(map(len, batches))


def change_content(trail: Trail) -> None:
    trail[1][1][0].content += b"!"


def swap_records(trail: Trail) -> None:
    first, second = trail[1][1][:2]
    first.content, second.content = second.content, first.content


def remove_record(trail: Trail) -> None:
    del trail[1][1][1]


def remove_last_record_of_a_seal(trail: Trail) -> None:
    del trail[0][1][-1]


def insert_record(trail: Trail) -> None:
    trail[1][1].append(AuditEntry(content=b"new", sequence=trail[1][1][-1].sequence))


def remove_seal_with_its_records(trail: Trail) -> None:
    del trail[1]


def remove_first_seal_with_its_records(trail: Trail) -> None:
    del trail[0]


def change_record_and_root(trail: Trail) -> None:
    one, entries = trail[1]
    entries[0].content = b"changed"
    one.merkle_root = merkle_root([entry.content for entry in entries])


def change_record_root_and_hash(trail: Trail) -> None:
    change_record_and_root(trail)
    trail[1][0].hash = seal_hash("acme", trail[1][0])


def widen_seal(trail: Trail) -> None:
    trail[2][0].last_sequence += 10**12


@pytest.mark.parametrize(
    "tamper",
    [
        change_content,
        swap_records,
        remove_record,
        remove_last_record_of_a_seal,
        insert_record,
        remove_seal_with_its_records,
        remove_first_seal_with_its_records,
        change_record_and_root,
        change_record_root_and_hash,
        widen_seal,
    ],
)
def test_a_changed_trail_has_problems(tamper: Callable[[Trail], None]) -> None:
    trail = make_trail([[b"a", b"b"], [b"c", b"d", b"e"], [b"f"]])
    tamper(trail)
    assert verify(trail).problems


def test_a_trail_of_another_tenant_does_not_verify() -> None:
    assert verify(make_trail([[b"a"]], "rival"), "acme").problems


def test_a_trail_without_its_end_has_another_head() -> None:
    trail = make_trail([[b"a"], [b"b"]])
    assert verify(trail).head != verify(trail[:1]).head
