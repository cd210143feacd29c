"""Concurrent changes of an alias by clients that interleave at every step, and die, on a log that may be compacted at
any time: no client overwrites a change that it has not read, and the other one gets an error."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inferd.errors import AliasChangedError
from inferd.models import Author, ModelChanges
from inferd.models.model_list import ModelList
from inferd.schemas.models import Alias, AliasKey, AliasTarget, VersionKey, encode_manifest, revisions
from tests.unit.inferd.test_model_changes import LIMITS, TIMEOUT_S, Broker, Step, manifest

KEY, VERSIONS = AliasKey("m", "champion"), 9


def broker() -> Broker:
    made = Broker()
    for version in range(1, VERSIONS + 1):
        made.logs["models"].append(str(VersionKey("m", version)), encode_manifest(manifest(b"a", version)), 0)
    return made


@dataclass
class Client:
    """A client that changes the alias once."""

    broker: Broker
    name: str
    version: int | None
    known: int | None = None
    """The revision that it expects."""
    outcome: Alias | AliasChangedError | None = None
    coroutine: Coroutine[Step, None, Any] | None = None

    def start(self) -> Coroutine[Step, None, Any]:
        changes = ModelChanges(self.broker, LIMITS, lambda: self.broker.now_s).aliases
        author = Author(self.name, self.known)
        if self.version is None:
            return changes.remove(KEY, author, TIMEOUT_S)
        return changes.set(KEY, AliasTarget(version=self.version), author, TIMEOUT_S)

    def advance(self) -> bool:
        """Runs the next step; returns whether it was the last."""
        self.coroutine = self.coroutine or self.start()
        try:
            _ = self.coroutine.send(None)
        except StopIteration as end:
            self.outcome = end.value
        except AliasChangedError as error:
            self.outcome = error
        else:
            return False
        return True


def alias_in(broker: Broker) -> Alias | None:
    models = ModelList(limits=LIMITS)
    for _, key, value, _ in broker.logs["models"].records:
        models.apply(key.encode(), value)
    return models.newest_revision(KEY)


@given(st.randoms(use_true_random=False))
def test_a_change_wins_or_its_author_is_told(rng: Any) -> None:
    there, clients = broker(), list[Client]()
    running: list[Client] = []
    for number in range(rng.randrange(2, 12)):
        version = rng.randrange(1, VERSIONS + 1) if rng.random() < 0.9 else None
        clients.append(Client(there, f"client {number}", version))
    waiting = list(clients)
    dead: set[str] = set()
    while waiting or running:
        if waiting and (not running or rng.random() < 0.2):
            running.append(waiting.pop())
        client = rng.choice(running)
        if rng.random() < 0.02:
            if client.coroutine is not None:
                client.coroutine.close()
            dead.add(client.name)
            running.remove(client)
        elif client.advance():
            running.remove(client)
        if rng.random() < 0.05:
            there.logs["models"].compact(tombstones=rng.random() < 0.5)
    there.logs["models"].compact(tombstones=True)
    check(there, clients, dead)


def check(there: Broker, clients: list[Client], dead: set[str]) -> None:
    newest = alias_in(there)
    chain = revisions(newest) if newest is not None else []
    assert [each.revision for each in chain] == list(range(len(chain), 0, -1))
    for client in clients:
        kept = [(each.version, each.revision) for each in chain if each.changed_by == client.name]
        if isinstance(client.outcome, Alias):
            made = client.outcome.changed_by == client.name  # otherwise it had that target already
            assert kept == ([(client.version, client.outcome.revision)] if made else [])
        elif isinstance(client.outcome, AliasChangedError):
            assert kept == []
            assert "changed in the meantime" in client.outcome.message
        else:
            assert client.name in dead
    keys = [key for _, key, _, _ in there.logs["models"].records if "@" in key]
    assert len(keys) <= 1 + len(dead), "no change is left behind by a client that lives"


def finished(client: Client) -> Alias | AliasChangedError | None:
    while not client.advance():
        pass
    return client.outcome


def test_a_caller_that_knows_another_revision_changes_nothing() -> None:
    there = broker()
    first = finished(Client(there, "a", 1, known=0))
    assert isinstance(first, Alias)
    assert (first.version, first.revision) == (1, 1)
    late = finished(Client(there, "b", 2, known=0))
    assert isinstance(late, AliasChangedError)
    assert late.message == (
        "m@champion was changed in the meantime: it has revision 1, not 0; now: 1 by a. Nothing was changed"
    )
    assert alias_in(there) == first
    again = finished(Client(there, "c", 1, known=1))
    assert again == first, "it has that target already"
    second = finished(Client(there, "d", 2, known=1))
    assert isinstance(second, Alias)
    assert second.revision == 2
