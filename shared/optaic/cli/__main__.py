"""Run the command line as a module."""

from optaic.cli import main

main()
