"""The type with which a file of a run is sent: no page of this origin loads it as its own script or style."""

import pytest

from gateway.downloads import media_type_of
from optaic.run.v1.run_pb2 import Artifact


@pytest.mark.parametrize(
    "given",
    [
        *(
            "text/javascript",
            "application/javascript",
            "Text/JavaScript; charset=utf-8",
            "application/x-ecmascript",
        ),
        *(
            "text/jscript",
            "text/livescript1.0",
            "text/css",
            "application/wasm",
            "",
            "no type",
            "text/html\r\nx: y",
        ),
    ],
)
def test_what_a_page_could_load_is_sent_as_bytes(given: str) -> None:
    assert media_type_of(Artifact(media_type=given)) == "application/octet-stream"


@pytest.mark.parametrize(
    "given", ["text/html", "application/json", "text/csv", "application/vnd.apache.parquet"]
)
def test_any_other_type_is_kept(given: str) -> None:
    assert media_type_of(Artifact(media_type=given)) == given
