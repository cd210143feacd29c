"""The register of targets: a new decoder is one entry here."""

from __future__ import annotations

from tests.fuzz import decoders, job_decoders, protocol_decoders, scored
from tests.fuzz.target import Target


def all_targets() -> dict[str, Target]:
    """All targets by name."""
    targets = (*decoders.targets(), *job_decoders.targets(), *protocol_decoders.targets(), scored.target())
    return {target.name: target for target in targets}
