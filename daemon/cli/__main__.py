"""`python -m inferd.daemon.cli` is `inferd`."""

from __future__ import annotations

from inferd.daemon.cli import main

main()
