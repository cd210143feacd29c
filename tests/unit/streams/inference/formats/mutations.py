"""Accidents of binary files."""

from __future__ import annotations

import random
from collections.abc import Callable

from inferd.schemas.errors import InferenceError

Mutate = Callable[[bytes, random.Random], bytes]


def flip_a_bit(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def change_a_byte(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def change_a_word(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content) // 4) * 4
    word = chance.choice((0, 1, 7, 2**15, 2**24, 2**31 - 1, 2**31, 2**32 - 1))
    return content[:place] + word.to_bytes(4, "little") + content[place + 4 :]


def cut_off(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def cut_out(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + content[place + chance.randrange(1, 200) :]


def double_a_part(content: bytes, chance: random.Random) -> bytes:
    place, length = chance.randrange(len(content)), chance.randrange(1, 200)
    return content[: place + length] + content[place:]


OF_BYTES: tuple[Mutate, ...] = (flip_a_bit, change_a_byte, cut_off, cut_out, double_a_part)


def is_read(read: Callable[[bytes], object], content: bytes) -> bool:
    """Whether the check of a file, which needs no library, lets it pass."""
    try:
        read(content)
    except InferenceError:
        return False
    return True
