"""Runs the command line as a module; nothing else."""

from optaic.cli import main

main()
