"""The register of targets: a new decoder is one entry here."""

from __future__ import annotations

from tests.fuzz import decoders, job_decoders, protocol_decoders, route_decoders, scored
from tests.fuzz.target import Target

_MODULES = (decoders, job_decoders, protocol_decoders, route_decoders)


def all_targets() -> dict[str, Target]:
    """All targets by name."""
    return {target.name: target for module in _MODULES for target in module.targets()} | {
        target.name: target for target in (scored.target(),)
    }
