"""Imported once by the process that children are forked from: what is built in is identified as it was loaded.

So a child has it at once, and says what it runs also after other files were put in place of those. What packages
register is read here too: a package that appears later, whoever wrote it, registers nothing.
"""

from optaic.plugins.registry import list_registered_code
from worker.code_identity import identify
from worker.preload import PRELOAD

for _name in PRELOAD:
    if _name.startswith("worker.builtin."):
        identify(f"{_name}:")

list_registered_code()
