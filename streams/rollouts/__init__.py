"""Rollouts: a version earns its traffic step by step, and loses it when a guard is breached.

`transitions` is pure: it says what follows from messages, time, what the workers counted and what the alias became.
"""

from inferd.streams.rollouts.figures import Compared, Figures, breach_of, measures_of
from inferd.streams.rollouts.measuring import MEASURED, Measuring
from inferd.streams.rollouts.processor import Models, RolloutProcessor
from inferd.streams.rollouts.rollout_store import RolloutStore
from inferd.streams.rollouts.transitions import Change, Terms, advance, author_of, is_settled, target_of_rollout, tick

__all__ = [
    "MEASURED",
    "Change",
    "Compared",
    "Figures",
    "Measuring",
    "Models",
    "RolloutProcessor",
    "RolloutStore",
    "Terms",
    "advance",
    "author_of",
    "breach_of",
    "is_settled",
    "measures_of",
    "target_of_rollout",
    "tick",
]
