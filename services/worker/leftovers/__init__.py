"""The files below the folder of a tenant which no run and no version has: find them, and remove those older than a day.

`naming` knows how files are called, `outputs` which of a run's files are its own, `versions` which files of a dataset a version has, by
`delta_log`; `places` the files themselves, `removing` how they go, `sweeping` the services, `memory` the sweep before. `python -m worker.leftovers` shows what a sweep would remove.
"""
