"""Tickets from the package `chatterbot-corpus`: short texts that people wrote in many languages, by language.

The files are read without importing the package, as those of `flights.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferd.daemon.demo.package_data import data_folder

CHARS_MIN, CHARS_MAX = 8, 160
PER_LANGUAGE_MIN, PER_LANGUAGE_MAX = 100, 600
HELD_OUT_EVERY = 5
"""One of so many tickets is not trained on."""
_CODE = "```"


@dataclass(frozen=True, slots=True)
class Tickets:
    """Texts, and the language of each."""

    texts: list[str]
    languages: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def load_tickets() -> tuple[Tickets, Tickets]:
    """Tickets for training, and those held out. Raises `ServerError` if the package is not installed."""
    everything = sorted(_texts(data_folder("chatterbot_corpus", "tickets")))
    languages_of = Counter(text for _, text in everything)
    clear = [(language, text) for language, text in everything if languages_of[text] == 1]
    counts = Counter(language for language, _ in clear)
    places = Counter[str]()
    train, held_out = Tickets([], []), Tickets([], [])
    for language, text in clear:
        places[language] += 1
        if counts[language] < PER_LANGUAGE_MIN or places[language] > PER_LANGUAGE_MAX:
            continue
        chosen = train if places[language] % HELD_OUT_EVERY else held_out
        chosen.texts.append(text)
        chosen.languages.append(language)
    return train, held_out


def _texts(folder: Path) -> set[tuple[str, str]]:
    """The different texts of usual length, each with its language."""
    return {
        (path.parent.name, text)
        for path in folder.rglob("*.yml")
        for text in _texts_of(_read_yaml(path))
        if CHARS_MIN <= len(text) <= CHARS_MAX and _CODE not in text
    }


def _texts_of(document: Any) -> Iterator[str]:
    for conversation in document.get("conversations") or ():
        for text in conversation:
            yield str(text).strip()


def _read_yaml(path: Path) -> Any:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_bytes(), loader)  # noqa: S506  # both loaders are safe ones
