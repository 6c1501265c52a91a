"""`python -m jobhistory.cli` is `jobhistory`."""

from jobhistory.cli import main

main()
