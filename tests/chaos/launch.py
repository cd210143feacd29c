"""`inferd` as the battery starts it: with kill points, bad versions, and the seeded bug that `CHAOS_BUG` names."""

from __future__ import annotations

import os

from inferd.daemon.cli import main
from tests.chaos import bad_versions, kill_points, seeded_bugs

if __name__ == "__main__":
    kill_points.install()
    bad_versions.install()
    if name := os.environ.get(seeded_bugs.BUG):
        seeded_bugs.BUGS[name].apply()
    main()
