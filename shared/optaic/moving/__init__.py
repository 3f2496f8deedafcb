"""Copy a folder of data to another place and compare both: between folders of this machine and an object store."""

from optaic.moving.copying import Copier, Outcome, StoppedError
from optaic.moving.folders import Folder, open_folder, overlap

__all__ = ["Copier", "Folder", "Outcome", "StoppedError", "open_folder", "overlap"]
