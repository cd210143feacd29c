"""What is paused of one tenant, as far as the records of `models` were read."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.schemas.models import Pause, PauseKey


class Pauses:
    """The paused models and routes of a tenant. The follower of the models changes it."""

    def __init__(self) -> None:
        self._pauses: dict[PauseKey, Pause] = {}
        self.models: frozenset[str] = frozenset()
        """Models whose requests and chunks wait."""
        self.resumed_ms = 0
        """When something was last resumed, Unix milliseconds: waiting until then is not the fault of a version."""

    @property
    def all(self) -> Mapping[PauseKey, Pause]:
        """What is paused, since when and by whom."""
        return self._pauses

    def apply(self, key: PauseKey, pause: Pause | None, written_ms: int) -> bool:
        """Applies a record; returns whether it changed something."""
        before = self._pauses.get(key)
        if pause is None:
            self._pauses.pop(key, None)
            self.resumed_ms = max(self.resumed_ms, written_ms)
        else:
            self._pauses[key] = pause
        self.models = frozenset(each.name for each in self._pauses if each.kind == "model")
        return before != pause

    def clear(self) -> None:
        """Forgets all: the records are read again."""
        self._pauses.clear()
        self.models = frozenset()

    def reason(self, kind: str, name: str) -> str | None:
        """Why records of a model or a route wait; None if they do not."""
        pause = self._pauses.get(PauseKey(kind, name))  # type: ignore[arg-type]
        if pause is None:
            return None
        why = f" ({pause.reason})" if pause.reason else ""
        return f"{kind} {name} was paused by {pause.by}{why}: `inferd resume --{kind} {name}`"
