"""`python -m daemon.demo`."""

import sys

from daemon.cli import main

main(["demo", *sys.argv[1:]])
