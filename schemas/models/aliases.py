"""What an alias means for the versions of its model: which it names, and what share of requests each answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.models.errors import VersionInUseError
from inferd.schemas.models.model import Alias, AliasKey, SplitShare

CHAMPION = "champion"
"""The alias that a bare model name means."""


def shares(alias: Alias) -> dict[int, float]:
    """The versions that answer requests, each with its share of them, in (0, 1]."""
    if alias.version is not None:
        return {alias.version: 1.0}
    split = alias.split or []
    total = sum(share.weight for share in split)
    return {share.version: share.weight / total for share in split}


def versions_named(alias: Alias) -> set[int]:
    """Every version that the alias names, shadow versions included."""
    return {*shares(alias), *(alias.shadow or ())}


def main_version(alias: Alias) -> int:
    """The version with the largest share."""
    share_of = shares(alias)
    return max(share_of, key=lambda version: share_of[version])


def missing_versions(alias: Alias, deployed: Collection[int]) -> list[int]:
    """Versions that answer requests by the alias and are not deployed: such requests end as `version_not_found`."""
    return sorted(shares(alias).keys() - set(deployed))


def label(name: str, alias: Alias, version: int) -> str:
    """The alias as it is listed beside one of its versions: `champion`, `champion (90 %)`, `champion (shadow)`."""
    share = shares(alias).get(version)
    if share is None:
        return f"{name} (shadow)"
    return name if share == 1 else f"{name} ({share * 100:.3g} %)"


def labels_of(aliases: Mapping[str, Alias], version: int) -> list[str]:
    """`label` for each of a model's aliases that names `version`."""
    return [label(name, alias, version) for name, alias in aliases.items() if version in versions_named(alias)]


def replaced(alias: Alias, version: int, by: int) -> Alias:
    """The alias with `by` in the place of `version`; the weights of one version in a split add up."""
    shadow = [number for number in alias.shadow or () if number not in (version, by)] or None
    if alias.version is not None:
        return msgspec.structs.replace(alias, version=by if alias.version == version else alias.version, shadow=shadow)
    merged: dict[int, float] = {}
    for share in alias.split or ():
        kept = by if share.version == version else share.version
        merged[kept] = merged.get(kept, 0.0) + share.weight
    if len(merged) == 1:
        return Alias(version=next(iter(merged)), shadow=shadow)
    split = [SplitShare(number, weight) for number, weight in merged.items()]
    return msgspec.structs.replace(alias, split=split, shadow=shadow)


def dangling_alias(key: AliasKey, missing: Collection[int]) -> str:
    """What to say of an alias that leads to versions that are not deployed."""
    versions = ", ".join(map(str, missing))
    what = "requests to it" if key.alias != CHAMPION else f"requests to it, and to {key.model_id},"
    return (
        f"alias {key} leads to version {versions}, which is not deployed: {what} end as version_not_found."
        " Point it at another version, or remove it"
    )


def version_in_use(key: AliasKey, version: int, others: Collection[int]) -> VersionInUseError:
    """The error for removing `version` while `key` leads to it; `others` are the versions that remain."""
    there = f"to one of {sorted(others)} " if others else ""
    return VersionInUseError(
        f"{key} leads to version {version}: without it, requests to the alias end as version_not_found. Remove the"
        f" alias first, or move it {there}in the same step (--move-aliases-to,"
        " or move_aliases_to over HTTP and from Python)"
    )


def refuse_shadow(alias: Alias) -> None:
    """`InvalidValueError` for shadow versions: the wire has the field, and no worker scores them yet."""
    if alias.shadow:
        raise InvalidValueError("shadow: no worker scores shadow versions yet; leave the field out")
