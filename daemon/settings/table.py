"""The description of each setting, and the error messages for wrong values and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field
from difflib import get_close_matches
from typing import Any

from inferd.daemon.settings.kinds import Kind
from inferd.schemas.errors import ServerError

PREFIX = "INFERD_"
TEST_PREFIX = "INFERD_TEST_"
"""Prefix of the tests' variables; no setting starts with it."""
_SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?=.*)",
    re.ASCII,
)


class SettingsError(ServerError):
    """Settings are invalid: `problems` has one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def setting(kind: Kind, default: Any, meaning: str, section: str, *, shown_default: str | None = None) -> Any:
    """A field of `Settings`. `shown_default` replaces a default that depends on the machine in the docs."""
    return field(
        default=default,
        repr=kind.name != "secret",
        metadata={"kind": kind, "meaning": meaning, "section": section, "shown_default": shown_default},
    )


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """The description of one setting."""

    field: str
    kind: Kind
    default: Any
    meaning: str
    section: str
    shown_default: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.field.upper()

    @property
    def flag(self) -> str | None:
        """The flag of `inferd worker`; none for secrets, since command lines are visible to other users."""
        return None if self.kind.name == "secret" else "--" + self.field.replace("_", "-")

    def problem(self, source: str, text: str) -> str:
        """The error message for `text` from `source`, a variable or a flag."""
        shown = "***" if self.kind.name == "secret" else shorten(text)
        return f"{source}={shown} is not allowed: it must be {self.kind.allowed}"


def info_of(item: Field[Any]) -> SettingInfo:
    """The description of a field made by `setting`."""
    kind_, shown = item.metadata["kind"], item.metadata["shown_default"]
    assert item.default is not MISSING
    if shown is None:
        shown = "" if item.default in (None, ()) else kind_.show(item.default)
    return SettingInfo(item.name, kind_, item.default, item.metadata["meaning"], item.metadata["section"], shown)


def unknown_names(environ: Mapping[str, str], known: set[str]) -> list[str]:
    """A line for each `INFERD_*` variable that is not one of `known`; `INFERD_TEST_*` belong to the tests."""
    ours = {name for name in environ if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX)}
    unknown = sorted(name for name in ours - known if not _is_service_link(name, environ))
    return [f"{name} is not a setting{_suggestion(name, known)}" for name in unknown]


def shorten(text: str, chars_max: int = 100) -> str:
    """`text` escaped and shortened for one line of an error message."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= chars_max else shown[: chars_max - 1] + "…"


def _is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes set the variable: it does so in every pod for a service whose name starts with `inferd`."""
    return "KUBERNETES_SERVICE_HOST" in environ and bool(_SERVICE_LINK.fullmatch(f"{name}={environ[name]}"))


def _suggestion(name: str, known: set[str]) -> str:
    nearest = get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f": did you mean {nearest[0]}?" if nearest else ""
