"""Write files that people asked for: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optaic.cli.session import fail

_EVERYBODY = 0o666


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a draft beside the target, which takes its place at the end of the block, with the mode of other new files.

    What cannot be written ends the command with an error that names the target.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=target.absolute().parent)
    except OSError as error:
        fail(f"{target} cannot be written: {error}")
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
        umask = os.umask(0)
        os.umask(umask)
        try:
            draft.chmod(_EVERYBODY & ~umask)
            draft.replace(target)
        except OSError as error:
            fail(f"{target} cannot be written: {error}")
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
