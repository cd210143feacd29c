"""`python -m inferd.daemon.demo`."""

import sys

from inferd.daemon.cli import main

main(["demo", *sys.argv[1:]])
