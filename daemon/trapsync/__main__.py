"""`python -m trapsync` is `trapsync`."""

from trapsync.cli import main

main()
