"""`python -m daemon.cli` is `inferd`."""

from __future__ import annotations

from daemon.cli import main

main()
