"""Copy a folder of data to another place and compare both: between folders of this machine and an object store."""

from optaic.moving.copying import Copier, Outcome
from optaic.moving.folders import Folder, open_folder

__all__ = ["Copier", "Folder", "Outcome", "open_folder"]
