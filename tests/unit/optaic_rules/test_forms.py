"""Names, dates, ids and references to code have one form for contracts, services, worker and client."""

import pytest
from google.protobuf.message import Message

from buf.validate import validate_pb2
from optaic.definition.v1.definition_pb2 import DefinitionVersion, Op, OpMacro
from optaic.instance.v1.spec_pb2 import DateRange
from optaic.rules import forms


def pattern_of(message: type[Message], field: str) -> str:
    rules = message.DESCRIPTOR.fields_by_name[field].GetOptions().Extensions[validate_pb2.field]
    texts = rules.repeated.items.string if rules.WhichOneof("type") == "repeated" else rules.string
    return texts.pattern


def test_the_contract_has_the_same_forms() -> None:
    assert pattern_of(DefinitionVersion, "code_ref") == f"^{forms.CODE_REF.pattern}$"
    for message, field in ((Op, "values"), (Op, "numbers"), (OpMacro, "parameters")):
        assert pattern_of(message, field) == f"^{forms.PARAMETER_NAME.pattern}$"
    for field in ("start", "end"):
        assert pattern_of(DateRange, field) == "^$|^[0-9]{4}-[0-9]{2}-[0-9]{2}$"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2024-02-29", True),
        ("0001-01-01", True),
        ("2023-02-29", False),
        ("20240229", False),
        ("2024-W09-4", False),
        ("2024-2-9", False),
        ("2024-02-29T00:00", False),
        ("२०२४-०२-२९", False),
        ("", False),
        ("today", False),
    ],
)
def test_a_date_has_one_form(text: str, *, is_one: bool) -> None:
    assert forms.is_date(text) is is_one


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("01890a5d-ac96-774b-bcce-b302099a8057", True),
        ("01890A5D-AC96-774B-BCCE-B302099A8057", True),
        ("prices", False),
        ("", False),
    ],
)
def test_ids_and_names_are_distinguished(text: str, *, is_one: bool) -> None:
    assert forms.is_id(text) is is_one
