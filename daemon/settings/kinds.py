"""Kinds of settings: how the text is parsed, which values are allowed, and how a value is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from inferd.schemas.errors import InvalidIdError
from inferd.schemas.topics import check_topic_part
from inferd.streams.settings import TenantRates

N = TypeVar("N", int, float)
TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]+|[A-Za-z0-9._-]+", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_TOPIC_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,249}", re.ASCII)
_TYPE_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)


def _plain(value: Any) -> str:
    return str(value)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `read` parses text and raises `ValueError` if it is not allowed."""

    name: str
    allowed: str
    """Completes "it must be …"."""
    read: Callable[[str], Any]
    show: Callable[[Any], str] = _plain


def integer(least: int, most: int | None = None) -> Kind:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            raise ValueError(text)
        return _in_range(int(text), least, most)

    return Kind("integer", f"a whole number{_range(least, most)}", read)


def number(least: float, most: float | None = None) -> Kind:
    """A finite number from `least` to `most`."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return _in_range(value, least, most)

    return Kind("number", f"a number{_range(least, most)}", read, lambda value: f"{value:.12g}")


def choice(literal: Any) -> Kind:
    """One of the words of a `Literal`."""
    words: tuple[str, ...] = get_args(literal)

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind("choice", f"one of {', '.join(words)}", read)


def switch() -> Kind:
    """On or off."""

    def read(text: str) -> bool:
        word = text.lower()
        if word not in TRUE_WORDS | FALSE_WORDS:
            raise ValueError(text)
        return word in TRUE_WORDS

    return Kind("switch", "true or false", read, lambda value: "true" if value else "false")


def text(pattern: str, allowed: str) -> Kind:
    """Text that matches `pattern` in full."""

    def read(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(value)
        return value

    return Kind("text", allowed, read)


def secret() -> Kind:
    """Text that is never printed."""
    return Kind("secret", "text", str, lambda _value: "***")


def directory() -> Kind:
    """A directory, which need not exist."""

    def read(value: str) -> Path:
        path = Path(value).expanduser()
        if path.exists() and not path.is_dir():
            raise ValueError(value)
        return path

    return Kind("directory", "a directory, or a path where one can be created", read)


def file() -> Kind:
    """The path of a file that exists."""

    def read(value: str) -> str:
        path = Path(value).expanduser()
        if not path.is_file():
            raise ValueError(value)
        return str(path)

    return Kind("file", "the path of a file that exists", read)


def addresses() -> Kind:
    """`host:port,…`."""

    def read(value: str) -> str:
        return ",".join(_address(part) for part in _parts(value))

    return Kind("addresses", "host:port, or several separated by commas", read)


def hosts() -> Kind:
    """`host,…`, without duplicates and ports."""

    def read(value: str) -> tuple[str, ...]:
        names = _distinct(tuple(_parts(value)))
        if not all(_HOST.fullmatch(name) for name in names):
            raise ValueError(value)
        return names

    return Kind("hosts", "different host names or IP addresses separated by commas, without ports", read, ",".join)


def topic_part(what: str) -> Kind:
    """A part of topic names: the namespace or a tenant."""
    return Kind("name", "1 to 63 of a-z 0-9 _ -, not starting with _ or -", lambda value: _topic_part(what, value))


def tenants() -> Kind:
    """`tenant,…`, without duplicates."""

    def read(value: str) -> tuple[str, ...]:
        return _distinct(tuple(_topic_part("tenant", part) for part in _parts(value)))

    allowed = "different names separated by commas, each 1 to 63 of a-z 0-9 _ -, not starting with _ or -"
    return Kind("names", allowed, read, ",".join)


def tenant_rates(most: float) -> Kind:
    """`rate[,tenant=rate…]`: the rate of all tenants, by default 0, and those of some by name."""
    rate = number(0, most)

    def read(value: str) -> TenantRates:
        default, by_tenant = 0.0, dict[str, float]()
        for place, part in enumerate(_parts(value)):
            tenant, equals, text = part.partition("=")
            if not equals and place:
                raise ValueError(value)
            if not equals:
                default = rate.read(part)
            elif _topic_part("tenant", tenant) in by_tenant:
                raise ValueError(value)
            else:
                by_tenant[tenant] = rate.read(text)
        return TenantRates(default, tuple(by_tenant.items()))

    def show(value: TenantRates) -> str:
        return ",".join([rate.show(value.default), *(f"{tenant}={rate.show(of)}" for tenant, of in value.by_tenant)])

    allowed = f"a number{_range(0, most)}, then `tenant=number` for tenants with another one, separated by commas"
    return Kind("rates", allowed, read, show)


def topics() -> Kind:
    """`topic,…`, without duplicates."""

    def read(value: str) -> tuple[str, ...]:
        names = _distinct(tuple(_parts(value)))
        if not all(_TOPIC.fullmatch(name) for name in names):
            raise ValueError(value)
        return names

    return Kind("topics", "different topic names separated by commas", read, ",".join)


def topic_patterns() -> Kind:
    """`[tenant=]pattern,…`, without duplicates."""

    def read(value: str) -> tuple[str, ...]:
        names = _distinct(tuple(_parts(value)))
        for name in names:
            tenant, equals, pattern = name.rpartition("=")
            if equals:
                _topic_part("tenant", tenant)
            if not _TOPIC_PATTERN.fullmatch(pattern):
                raise ValueError(value)
        return names

    allowed = "topics or patterns with `*` separated by commas; `tenant=pattern` if there are several tenants"
    return Kind("topics", allowed, read, ",".join)


def type_names() -> Kind:
    """Full names of Python types, without duplicates."""

    def read(value: str) -> tuple[str, ...]:
        names = _distinct(tuple(_parts(value)))
        if not all(_TYPE_NAME.fullmatch(name) for name in names):
            raise ValueError(value)
        return names

    return Kind("types", "different full names of types separated by commas", read, ",".join)


def _in_range(value: N, least: float, most: float | None) -> N:
    if value < least or (most is not None and value > most):
        raise ValueError(value)
    return value


def _range(least: float, most: float | None) -> str:
    return f", {least:,} or more" if most is None else f" from {least:,} to {most:,}"


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(names)
    return names


def _address(part: str) -> str:
    match = _ADDRESS.fullmatch(part)
    if match is None or not 0 < int(match["port"]) < 65_536:
        raise ValueError(part)
    return part


def _topic_part(what: str, value: str) -> str:
    try:
        return check_topic_part(what, value)
    except InvalidIdError as error:
        raise ValueError(value) from error
