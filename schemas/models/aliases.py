"""The versions of a model that an alias points at, and the share of requests that each gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.models.errors import VersionInUseError
from inferd.schemas.models.model import Alias, AliasKey, AliasTarget, SplitShare

CHAMPION = "champion"
"""The alias that a model name without version or alias stands for."""


def shares(alias: AliasTarget) -> dict[int, float]:
    """The versions that answer requests and the share of each, in (0, 1]."""
    if alias.version is not None:
        return {alias.version: 1.0}
    split = alias.split or []
    total = sum(share.weight for share in split)
    return {share.version: share.weight / total for share in split}


def versions_named(alias: AliasTarget) -> set[int]:
    """Every version that the alias names, shadow versions included."""
    return {*shares(alias), *(alias.shadow or ())}


def main_version(alias: AliasTarget) -> int:
    """The version with the largest share."""
    share_of = shares(alias)
    return max(share_of, key=lambda version: share_of[version])


def missing_versions(alias: Alias, deployed: Collection[int]) -> list[int]:
    """Versions that should answer requests but are not deployed; their requests fail with `version_not_found`."""
    return sorted(shares(alias).keys() - set(deployed))


def alias_label(name: str, alias: Alias, version: int) -> str:
    """The alias as listed with one of its versions: `champion`, `champion (90 %)`, `champion (shadow)`."""
    share = shares(alias).get(version)
    if share is None:
        return f"{name} (shadow)"
    return name if share == 1 else f"{name} ({share * 100:.3g} %)"


def alias_labels(aliases: Mapping[str, Alias], version: int) -> list[str]:
    """`label` for each of a model's aliases that names `version`."""
    return [alias_label(name, alias, version) for name, alias in aliases.items() if version in versions_named(alias)]


def alias_text(target: AliasTarget) -> str:
    """The target for people: `3`, or `3 (90 %), 4 (10 %)`, and shadow versions."""
    share_of = shares(target)
    parts = [f"{version} ({share * 100:.3g} %)" if share < 1 else str(version) for version, share in share_of.items()]
    return ", ".join([*parts, *(f"{version} (shadow)" for version in target.shadow or ())])


def replace_version(alias: AliasTarget, version: int, by: int) -> AliasTarget:
    """The target with `version` replaced `by` another one; if the split names both, their weights are added."""
    shadow = [number for number in alias.shadow or () if number not in (version, by)] or None
    if alias.version is not None:
        return AliasTarget(version=by if alias.version == version else alias.version, shadow=shadow)
    merged: dict[int, float] = {}
    for share in alias.split or ():
        kept = by if share.version == version else share.version
        merged[kept] = merged.get(kept, 0.0) + share.weight
    if len(merged) == 1:
        return AliasTarget(version=next(iter(merged)), shadow=shadow)
    return AliasTarget(split=[SplitShare(number, weight) for number, weight in merged.items()], shadow=shadow)


def dangling_alias_message(key: AliasKey, missing: Collection[int]) -> str:
    """The warning for an alias that points at versions that are not deployed."""
    versions = ", ".join(map(str, missing))
    what = "requests to it" if key.alias != CHAMPION else f"requests to it, and to {key.model_id},"
    return (
        f"alias {key} points at version {versions}, which is not deployed: {what} fail with version_not_found."
        " Point it at another version, or remove it"
    )


def version_in_use_error(key: AliasKey, version: int, others: Collection[int]) -> VersionInUseError:
    """The error for removing `version` while the alias `key` points at it; `others` are the remaining versions."""
    there = f"to one of {sorted(others)} " if others else ""
    return VersionInUseError(
        f"{key} points at version {version}: without it, requests to the alias fail with version_not_found. Remove the"
        f" alias first, or move it {there}in the same step (--move-aliases-to,"
        " or move_aliases_to over HTTP and from Python)"
    )


def check_shadow(alias: AliasTarget) -> None:
    """`InvalidValueError` for a shadow version that also answers requests."""
    if both := sorted(shares(alias).keys() & set(alias.shadow or ())):
        raise InvalidValueError(f"shadow: version {both[0]} answers requests of the alias itself; name another one")


def check_no_shadow(alias: AliasTarget) -> None:
    """`InvalidValueError` for shadow versions, where nothing would score them."""
    if alias.shadow:
        raise InvalidValueError("shadow: only workers score shadow versions; omit the field in a script")
