"""Rollouts of a tenant: starts and steers them, and reads their statuses."""

from inferd.rollouts.rollouts import Rollouts

__all__ = ["Rollouts"]
