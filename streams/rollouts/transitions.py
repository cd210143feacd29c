"""The transitions of rollouts: pure functions from a state and an input to the next state and changes of the alias.

    advance   a message of `rollouts`
    tick      time, what the workers counted, and what was read of the alias

The caller publishes the changes and stores the state in one transaction. The phase and the step say what the alias
should point at, and `Rollout.move` is the last change that was written for that. The next one is written only after the
last one was read from the log and counted there, and with the revision that follows it: it cannot overwrite anybody
else's change, and it is written once. After a change by anybody else, the rollout never changes the alias again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b

from msgspec.structs import replace

from inferd.schemas.errors import InvalidValueError, ModelNotReadyError, ModelServingError, VersionNotFoundError
from inferd.schemas.models import (
    Alias,
    AliasChangedError,
    AliasChangeKey,
    AliasTarget,
    SplitShare,
    alias_text,
    next_revision,
    target_of,
)
from inferd.schemas.rollouts import (
    EVENTS_MAX,
    AbortRollout,
    Control,
    GuardUnavailableError,
    Metric,
    Move,
    PauseRollout,
    Phase,
    PromoteRollout,
    Rollout,
    RolloutConflictError,
    RolloutEvent,
    RolloutMessage,
    RolloutNotFoundError,
    StartRollout,
    Step,
    normalised,
    parse_guard,
    parse_step,
)
from inferd.streams.rollouts.figures import Compared, breach_of

NEEDS: Mapping[Metric, str] = {
    "errors": "INFERD_MONITOR other than off",
    "p50": "INFERD_MONITOR other than off",
    "p95": "INFERD_MONITOR other than off",
    "p99": "INFERD_MONITOR other than off",
    "disagreement": "a shadow step",
    "psi": "INFERD_MONITOR other than off",
    "auc": "INFERD_LABELS_WINDOW_S above 0, and INFERD_MONITOR other than off",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a message is checked against."""

    alias: Alias | None
    """The newest revision of the alias as far as the log was read; None if it was never set."""
    versions: Collection[int]
    """The versions of the model that are deployed."""
    usable: Collection[int]
    """Those of them that have passed their trial."""
    measured: Collection[Metric]
    """What the workers measure."""


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from an input."""

    rollout: Rollout | None
    changed: bool = False
    records: Mapping[AliasChangeKey, Alias | None] = field(default_factory=dict)
    """To be written to `models` together with the state."""
    rejection: ModelServingError | None = None


def advance(rollout: Rollout | None, model_id: str, message: RolloutMessage, now_ms: int, terms: Terms) -> Change:
    """The change by a message about the rollout of a model (None: it never had one).

    With a `rejection` the message changed nothing: `RolloutConflictError` if it does not fit the phase,
    `RolloutNotFoundError`; for a start also `VersionNotFoundError`, `ModelNotReadyError`, `InvalidValueError`,
    `AliasChangedError` and `GuardUnavailableError`.
    """
    seen = Change(None) if rollout is None else _settled(rollout, now_ms, terms.alias)
    try:
        if isinstance(message, StartRollout):
            return _started(seen, model_id, message, now_ms, terms)
        return _controlled(seen, rollout, message, now_ms, terms)
    except ModelServingError as rejection:
        return Change(seen.rollout, seen.rollout is not rollout, seen.records, rejection)


def tick(
    rollout: Rollout, now_ms: int, alias: Alias | None, compared: Compared, *, model_paused: bool = False
) -> Change:
    """The change that is due. `alias`: its newest revision as far as the log was read; `compared`: figures of requests
    since the running step's change of the alias; `model_paused`: no requests are scored, so that the clock stands and
    no guard is looked at."""
    seen = _settled(rollout, now_ms, alias)
    after = seen.rollout or rollout
    if not after.ended:
        after = (
            _clock_stopped(after, now_ms) if model_paused else _judged(_clock_running(after, now_ms), now_ms, compared)
        )
    return _then(rollout, seen, after, now_ms, alias)


def target_of_rollout(rollout: Rollout) -> AliasTarget:
    """What the alias should point at."""
    shadow = [version for version in rollout.base.shadow or () if version != rollout.version]
    if rollout.phase in ("rolled_back", "aborted"):
        return rollout.base
    step = _step(rollout)
    if rollout.phase == "promoted" or step.percent == 100:
        return AliasTarget(version=rollout.version, shadow=shadow or None)
    if step.percent is None:
        return AliasTarget(version=rollout.base.version, shadow=[*shadow, rollout.version])
    assert rollout.base.version is not None, "a rollout starts from one version"
    split = [SplitShare(rollout.base.version, 100 - step.percent), SplitShare(rollout.version, step.percent)]
    return AliasTarget(split=split, shadow=shadow or None)


def is_settled(rollout: Rollout) -> bool:
    """Whether the rollout has ended and will not change the alias any more."""
    move = rollout.move
    moved = move is not None and move.seen and move.target == target_of_rollout(rollout)
    return rollout.ended and (moved or rollout.superseded_by is not None)


def author_of(rollout: Rollout) -> str:
    """`changed_by` of the changes that a rollout writes: no other program's change has it."""
    return f"rollout {rollout.id}"


# ---------------------------------------------------------------------- messages


def _started(seen: Change, model_id: str, message: StartRollout, now_ms: int, terms: Terms) -> Change:
    if seen.rollout is not None and not is_settled(seen.rollout):
        doing = "still returns the alias" if seen.rollout.ended else f"is {seen.rollout.phase}"
        raise RolloutConflictError(f"rollout {seen.rollout.id} of {model_id} {doing}: abort it, or wait for it")
    alias, message = terms.alias, normalised(message)
    base = _base(model_id, message, alias)
    _check_version(model_id, message, base, terms)
    _check_guards(message, terms)
    started = Rollout(
        id=message.id, model_id=model_id, alias=message.alias, version=message.to, base=base,
        base_revision=alias.revision if alias is not None else 0, steps=message.steps, guards=message.guards,
        requests_min=message.requests_min, guard_requests_min=message.guard_requests_min,
        started_at=now_ms, started_by=message.by,
    )  # fmt: skip
    started = _noted(started, now_ms, f"started towards version {message.to}", message.by)
    return _moved(started, now_ms, alias, dict(seen.records))


def _base(model_id: str, message: StartRollout, alias: Alias | None) -> AliasTarget:
    name = f"{model_id}@{message.alias}"
    if alias is None or alias.removed:
        raise VersionNotFoundError(
            f"model {model_id!r} has no alias {message.alias!r}: point it at the version that serves now, with"
            f" `inferd models alias {name} VERSION`"
        )
    if message.revision is not None and message.revision != alias.revision:
        raise AliasChangedError(f"{name} has revision {alias.revision}, not {message.revision}: {alias_text(alias)}")
    if alias.version is None:
        raise InvalidValueError(f"{name} is a split ({alias_text(alias)}): point it at one version first")
    return target_of(alias)


def _check_version(model_id: str, message: StartRollout, base: AliasTarget, terms: Terms) -> None:
    if message.to == base.version:
        raise InvalidValueError(f"{model_id}@{message.alias} points at version {message.to} already")
    for version in (message.to, base.version):
        if version not in terms.versions:
            raise VersionNotFoundError(f"model {model_id!r} has no version {version}")
    if message.to not in terms.usable:
        raise ModelNotReadyError(
            f"{model_id}:{message.to} is not loaded yet, or has failed its trial: the worker's /status says which;"
            " start again once it is ready"
        )


def _check_guards(message: StartRollout, terms: Terms) -> None:
    has_shadow = parse_step(message.steps[0]).percent is None
    for text in message.guards:
        metric = parse_guard(text).metric
        if metric not in terms.measured or (metric == "disagreement" and not has_shadow):
            raise GuardUnavailableError(f"guard {text!r}: needs {NEEDS[metric]}")
    if "errors" not in terms.measured:
        raise GuardUnavailableError(f"a rollout counts requests: needs {NEEDS['errors']}")


def _controlled(seen: Change, before: Rollout | None, message: Control, now_ms: int, terms: Terms) -> Change:
    rollout = seen.rollout
    if rollout is None or before is None:
        raise RolloutNotFoundError("the model has no rollout: start one with `inferd rollouts start`")
    if message.rollout not in (None, rollout.id):
        raise RolloutConflictError(f"the model has another rollout by now: {rollout.id}")
    match message:
        case PauseRollout():
            after = _paused(rollout, now_ms, message.by)
        case PromoteRollout():
            after = _finished(rollout, "promoted", now_ms, message.by)
        case AbortRollout():
            after = _finished(rollout, "aborted", now_ms, message.by)
        case _:
            after = _resumed(rollout, now_ms, message.by)
    return _then(before, seen, after, now_ms, terms.alias)


def _paused(rollout: Rollout, now_ms: int, by: str | None) -> Rollout:
    if rollout.phase == "paused":
        return rollout
    _check_open(rollout, "paused")
    paused = replace(rollout, phase="paused", since=None, held_ms=_held_ms(rollout, now_ms))
    return _noted(paused, now_ms, "paused", by)


def _resumed(rollout: Rollout, now_ms: int, by: str | None) -> Rollout:
    if rollout.phase == "running":
        return rollout
    _check_open(rollout, "resumed")
    seen = rollout.move is not None and rollout.move.seen
    return _noted(replace(rollout, phase="running", since=now_ms if seen else None), now_ms, "resumed", by)


def _finished(rollout: Rollout, phase: Phase, now_ms: int, by: str | None) -> Rollout:
    if rollout.phase == phase:
        return rollout
    if not (phase == "aborted" and rollout.phase == "promoted" and rollout.superseded_by is None):
        _check_open(rollout, phase)
    return _noted(_ended(rollout, phase, now_ms), now_ms, phase, by)


def _check_open(rollout: Rollout, what: str) -> None:
    if rollout.ended:
        raise RolloutConflictError(f"rollout {rollout.id} was {rollout.phase}: it cannot be {what}")


# ---------------------------------------------------------------------- time and guards


def _judged(rollout: Rollout, now_ms: int, compared: Compared) -> Rollout:
    """The rollout after its guards and its clock were looked at."""
    if (breach := breach_of(rollout, compared, now_ms)) is not None:
        ended = replace(_ended(rollout, "rolled_back", now_ms), breach=breach)
        return _noted(ended, now_ms, f"rolled back: {breach.guard} was breached in the step {breach.step}")
    if not _is_done(rollout, now_ms, compared.new.requests):
        return rollout
    if rollout.step == len(rollout.steps) - 1:
        return _noted(_ended(rollout, "promoted", now_ms), now_ms, "promoted")
    following = replace(rollout, step=rollout.step + 1, since=None, held_ms=0)
    return _noted(following, now_ms, f"step {following.steps[following.step]}")


def _clock_stopped(rollout: Rollout, now_ms: int) -> Rollout:
    return rollout if rollout.since is None else replace(rollout, since=None, held_ms=_held_ms(rollout, now_ms))


def _clock_running(rollout: Rollout, now_ms: int) -> Rollout:
    """The rollout with its clock running again after its model was resumed."""
    stands = rollout.phase == "running" and rollout.since is None and rollout.move is not None and rollout.move.seen
    return replace(rollout, since=now_ms) if stands else rollout


def _is_done(rollout: Rollout, now_ms: int, requests: int) -> bool:
    """Whether the running step has lasted long enough, by time and requests."""
    step = _step(rollout)
    if rollout.phase != "running" or rollout.since is None:
        return False
    at_once = step.hold_s == 0 and step.requests_min is None
    requests_min = rollout.requests_min if step.requests_min is None else step.requests_min
    return at_once or (_held_ms(rollout, now_ms) >= step.hold_s * 1_000 and requests >= requests_min)


def _held_ms(rollout: Rollout, now_ms: int) -> int:
    """How long the running step has lasted, without pauses."""
    return rollout.held_ms + (0 if rollout.since is None else max(0, now_ms - rollout.since))


def _step(rollout: Rollout) -> Step:
    return parse_step(rollout.steps[rollout.step])


def _ended(rollout: Rollout, phase: Phase, now_ms: int) -> Rollout:
    return replace(rollout, phase=phase, ended_at=now_ms, since=None, held_ms=_held_ms(rollout, now_ms))


# ---------------------------------------------------------------------- the alias


def _then(before: Rollout, seen: Change, after: Rollout, now_ms: int, alias: Alias | None) -> Change:
    """The change to `after`, with the move of the alias that it asks for."""
    move, records = after.move, dict(seen.records)
    is_free = move is not None and move.seen and after.superseded_by is None and _is_ours(after, alias)
    if move is not None and is_free and move.target != target_of_rollout(after):
        return _moved(after, now_ms, alias, records)
    return Change(after, after is not before, records)


def _settled(rollout: Rollout, now_ms: int, alias: Alias | None) -> Change:
    """The change by what was read of the alias: the last move counted, or somebody else's change did."""
    move = rollout.move
    assert move is not None, "a rollout starts with a move"
    read = alias.revision if alias is not None else 0
    if rollout.superseded_by is not None or read < move.revision:
        return Change(rollout)
    if alias is None or not _is_ours(rollout, alias):
        return Change(_superseded(rollout, now_ms, alias), True)
    if move.seen:
        return Change(rollout)
    seen = replace(rollout, move=replace(move, seen=True))
    if rollout.phase == "running":
        seen = replace(seen, since=now_ms, held_ms=0)
    # The change before it decides nothing any more: see `AliasLog`.
    earlier = [_key(rollout, move.revision - 1)] if move.revision - 1 > rollout.base_revision else []
    return Change(seen, True, dict.fromkeys(earlier))


def _is_ours(rollout: Rollout, alias: Alias | None) -> bool:
    """Whether the last move is what the alias is now."""
    move = rollout.move
    if alias is None or move is None:
        return False
    return (alias.revision, alias.changed_by, target_of(alias)) == (move.revision, author_of(rollout), move.target)


def _superseded(rollout: Rollout, now_ms: int, alias: Alias | None) -> Rollout:
    now = "removed" if alias is None or alias.removed else alias_text(alias)
    by = alias.changed_by if alias is not None and alias.changed_by else "another program"
    text = f"{by}: {now}"[:256]
    after = replace(rollout, superseded_by=text)
    if not rollout.ended:
        after = _ended(after, "superseded", now_ms)
    return _noted(after, now_ms, f"the alias was changed by {text}")


def _moved(rollout: Rollout, now_ms: int, alias: Alias | None, records: dict[AliasChangeKey, Alias | None]) -> Change:
    """The change that writes what the alias should point at, after the revision `alias`."""
    target = target_of_rollout(rollout)
    changed_at = datetime.fromtimestamp(now_ms / 1_000, UTC).isoformat(timespec="milliseconds")
    restores = rollout.base_revision if rollout.ended and target == rollout.base else None
    written = next_revision(alias, target, changed_at, author_of(rollout), restores)
    moved = replace(rollout, move=Move(written.revision, target))
    moved = _noted(moved, now_ms, f"alias -> {alias_text(target)}", revision=written.revision)
    return Change(moved, True, records | {_key(rollout, written.revision): written})


def _key(rollout: Rollout, revision: int) -> AliasChangeKey:
    """The key of a rollout's change: the same for the same change, and no other change has it."""
    digest = blake2b(f"{rollout.id}/{revision}".encode(), digest_size=16).hexdigest()
    return AliasChangeKey(rollout.model_id, rollout.alias, digest)


def _noted(rollout: Rollout, now_ms: int, what: str, by: str | None = None, revision: int | None = None) -> Rollout:
    events = [*rollout.events, RolloutEvent(now_ms, what, revision, by)]
    if len(events) > EVENTS_MAX:
        events = [events[0], *events[2:]]
    return replace(rollout, events=events)
