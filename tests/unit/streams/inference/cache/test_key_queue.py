"""A queue of keys against a list, also while it is inspected."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.inference.cache.key_queue import KeyQueue, word_of

PREFIX = b"version1"


def key(number: int) -> bytes:
    return PREFIX + hashlib.blake2b(number.to_bytes(8, "big"), digest_size=23).digest()


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["append", "extend", "popleft", "inspect"]), st.integers(1, 1_500)), max_size=40
)


@given(ACTIONS, st.integers(1, 4))
def test_it_is_a_list_from_which_inspection_removes(actions: list[tuple[str, int]], kept_of: int) -> None:
    queue, model, numbers = KeyQueue(PREFIX), list[bytes](), iter(range(10**9))
    for action, number in actions:
        if action == "append":
            model.append(key(next(numbers)))
            queue.append(model[-1])
        elif action == "extend":
            added = [key(next(numbers)) for _ in range(number)]
            model += added
            queue.extend(added)
        elif action == "popleft":
            for _ in range(min(number, len(model))):
                assert queue.popleft() == model.pop(0)
        else:
            seen = list[bytes]()

            def keep(keys: list[bytes], seen: list[bytes] = seen) -> list[bytes]:
                seen += keys
                return keys[::kept_of]

            assert queue.inspect(number, keep) == len(seen) <= number
            gone = set(seen) - set(seen[::kept_of])
            model = [each for each in model if each not in gone]
        assert len(queue) == len(model)
        assert list(queue) == model
        assert [word for part in queue.words() for word in part.tolist()] == [word_of(each) for each in model]


def test_a_round_meets_each_key_once_although_the_queue_moves() -> None:
    queue, seen = KeyQueue(PREFIX), list[bytes]()
    queue.extend([key(n) for n in range(3_000)])
    number = 3_000

    def keep(keys: list[bytes]) -> list[bytes]:
        seen.extend(keys)
        return keys

    while queue.inspect(100, keep):
        queue.popleft()
        if number < 3_010:
            queue.append(key(number))
            number += 1
    assert len(seen) == len(set(seen))
    assert {key(n) for n in range(100, number)} <= {*seen}
