"""The files below the folder of a tenant which no run and no version has: find them, and remove those older than a day.

`naming` knows how files are called, `outputs` which of a run's files are its own, `versions` which files of a dataset a version has,
`places` the files themselves, `sweeping` the services. `python -m worker.leftovers` shows what a sweep would remove.
"""
