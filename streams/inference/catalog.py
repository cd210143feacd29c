"""The model versions and aliases of one tenant, and the resolution of model references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InvalidValueError, ModelNotFoundError, ModelNotReadyError, VersionNotFoundError
from inferd.schemas.models import CHAMPION, Alias, Manifest, missing_versions, shares
from inferd.schemas.requests import OUTPUTS, ModelReference, Output
from inferd.streams.inference.features import FeatureSchema
from inferd.streams.inference.postprocess import Postprocessor
from inferd.streams.inference.row_by_row import RowByRow
from inferd.streams.inference.runtime import ModelRuntime
from inferd.streams.inference.splits import versions_of

State = Literal["fetching", "trying", "ready", "unloaded", "failed"]
"""`unloaded`: a version that passed its trial, and is loaded when a request needs it."""
_SHOWN = 20
"""Outputs that an error names."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A loaded version."""

    manifest: Manifest
    runtime: ModelRuntime
    features: FeatureSchema
    postprocessor: Postprocessor

    def has_output(self, output: Output) -> bool:
        """Whether the version has `output`, so that requests may name it."""
        declared = output in OUTPUTS or output in (self.manifest.output_names or ())
        return declared and self.runtime.supports(output)

    def check_outputs(self, outputs: Iterable[Output]) -> None:
        """Raises `InvalidValueError` for an output that the model does not have; the message lists those that it
        has."""
        for output in outputs:
            if not self.has_output(output):
                manifest = self.manifest
                given = [name for name in (*OUTPUTS, *(manifest.output_names or ())) if self.has_output(name)]
                raise InvalidValueError(
                    f"outputs: {manifest.model_id}:{manifest.version} (objective {manifest.objective}) has no output"
                    f" {output[:80]!r}; it has {_listed(given)}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A deployed version. `served` is set once it is loaded; `reason` says what it waits for, or why it failed."""

    manifest: Manifest
    state: State
    reason: str | None = None
    served: ServedModel | None = None
    loadable: Manifest | None = None
    """What passed its trial, and may be unloaded and loaded again; None if it stays loaded."""

    @property
    def usable(self) -> bool:
        """Whether it can answer requests, if necessary after it is loaded."""
        return self.served is not None or self.loadable is not None


class ModelCatalog:
    """The versions and aliases of one tenant. Deploys write it, the lane reads it."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, Version]] = {}
        self._aliases: dict[str, dict[str, Alias]] = {}
        self._removed: set[tuple[str, int, str]] = set()
        """Name, version number and digest of versions that were removed, or replaced by other bytes."""
        self._own: dict[str, Version] = {}
        self.revision = 0
        """Increases with every change, to invalidate cached resolutions."""

    def versions(self) -> list[Version]:
        """All versions, ordered by name and number."""
        deployed = [versions[n] for _, versions in sorted(self._versions.items()) for n in sorted(versions)]
        return [*self._own.values(), *deployed]

    def put_own(self, version: Version) -> None:
        """Adds a version served by user code. It takes precedence over deployed models of the same name."""
        self._own[version.manifest.model_id] = version
        self.revision += 1

    def owns(self, name: str) -> bool:
        """Whether user code serves the name."""
        return name in self._own

    def version(self, name: str, number: int) -> Version | None:
        own = self._own.get(name)
        if own is not None and own.manifest.version == number:
            return own
        return self._versions.get(name, {}).get(number)

    def numbers(self, name: str) -> frozenset[int]:
        """The numbers of all deployed versions of a model."""
        return frozenset(self._versions.get(name, ()))

    def usable_numbers(self, name: str) -> frozenset[int]:
        """The numbers of the versions of a model that can answer requests."""
        return frozenset(number for number, version in self._versions.get(name, {}).items() if version.usable)

    def aliases_of(self, name: str, number: int) -> tuple[str, ...]:
        """Aliases that point at a version, alone or in a split."""
        aliases = self._aliases.get(name, {})
        return tuple(sorted(a for a, alias in aliases.items() if number in shares(alias)))

    def aliases(self, name: str) -> dict[str, Alias]:
        """The aliases of a model, with their targets."""
        return dict(self._aliases.get(name, {}))

    def every_alias(self) -> dict[tuple[str, str], Alias]:
        """The aliases of all models by (model, alias), in order."""
        return {
            (name, alias): target
            for name, aliases in sorted(self._aliases.items())
            for alias, target in sorted(aliases.items())
        }

    def dangling_aliases(self) -> dict[tuple[str, str], list[int]]:
        """Aliases that point at versions that are not deployed: these versions by (model, alias)."""
        found = {
            (name, alias): missing_versions(target, self._versions.get(name, {}))
            for (name, alias), target in self.every_alias().items()
        }
        return {key: missing for key, missing in found.items() if missing}

    def put(self, version: Version) -> Version | None:
        """Adds a version, or replaces the one with the same name and number. Returns the replaced one."""
        manifest = version.manifest
        versions = self._versions.setdefault(manifest.model_id, {})
        previous = versions.get(manifest.version)
        versions[manifest.version] = version
        if previous is not None:
            self._removed.add(_identity(previous))
        self._removed.discard(_identity(version))
        self.revision += 1
        return previous

    def set_state(self, version: Version, state: State, reason: str | None = None) -> Version:
        """Replaces the version by a copy in another state; returns the copy."""
        changed = replace(version, state=state, reason=reason)
        self.put(changed)
        return changed

    def remove(self, name: str, number: int) -> Version | None:
        """Removes and returns a version; None if absent."""
        versions = self._versions.get(name, {})
        removed = versions.pop(number, None)
        if removed is not None:
            self._removed.add(_identity(removed))
        if not versions:
            self._versions.pop(name, None)
        self.revision += 1
        return removed

    def was_removed(self, name: str, number: int, digest: str) -> bool:
        """Whether a version with this digest existed and was removed or replaced."""
        return (name, number, digest) in self._removed

    def put_alias(self, name: str, alias: str, target: Alias | None) -> None:
        """Sets an alias; removes it if `target` is None."""
        aliases = self._aliases.pop(name, {})
        aliases.pop(alias, None)
        if target is not None:
            aliases[alias] = target
        if aliases:
            self._aliases[name] = aliases
        self.revision += 1

    def alias_behind(self, reference: ModelReference) -> Alias | None:
        """The alias by which a reference is resolved, for a bare name `champion`; None if there is none."""
        if reference.version is not None or self.owns(reference.name):
            return None
        return self._aliases.get(reference.name, {}).get(reference.alias or CHAMPION)

    def splits(self, reference: ModelReference) -> bool:
        """Whether the reference is an alias with a split. The version then depends on the request's routing key."""
        alias = self.alias_behind(reference)
        return alias is not None and alias.split is not None

    def split_numbers(self, reference: ModelReference) -> list[int]:
        """The version numbers of the split, if `splits(reference)`."""
        return sorted(shares(self._aliases[reference.name][reference.alias or CHAMPION]))

    def split_versions(
        self, reference: ModelReference, routing_keys: Sequence[bytes] | Sequence[str]
    ) -> NDArray[np.int64]:
        """The version number for each routing key, if `splits(reference)`: int64 (keys,)."""
        split = self._aliases[reference.name][reference.alias or CHAMPION].split or []
        return versions_of(split, routing_keys)

    def resolve(self, reference: ModelReference, routing_key: bytes = b"") -> ServedModel:
        """The version to score with. For a split, `routing_key` determines it.

        A bare name means `name@champion`; without that alias, the newest usable version. Raises `ModelNotFoundError`,
        `VersionNotFoundError`, or `ModelNotReadyError`.
        """
        version = self.choose(reference, routing_key)
        if version.served is None:
            manifest = version.manifest
            raise ModelNotReadyError(
                f"{manifest.model_id}:{manifest.version} is {version.state}{_unavailable_reason(version)}"
            )
        return version.served

    def choose(self, reference: ModelReference, routing_key: bytes = b"") -> Version:
        """The version that `resolve` returns, whether or not it is loaded; raises as `resolve` does."""
        candidates = self.candidates(reference, routing_key)
        for version in candidates:
            if version.usable:
                return version
        first = candidates[0]
        name, number = reference.name, first.manifest.version
        if len(candidates) == 1 and (reference.version or reference.alias or self._champion(name)):
            raise ModelNotReadyError(f"{name}:{number} is {first.state}{_unavailable_reason(first)}")
        raise ModelNotReadyError(
            f"no version of {name!r} is ready; {number} is {first.state}{_unavailable_reason(first)}"
        )

    def candidates(self, reference: ModelReference, routing_key: bytes = b"") -> list[Version]:
        """The versions that the reference may resolve to, in order of preference. Only a bare name can have several.

        Raises `ModelNotFoundError` or `VersionNotFoundError`.
        """
        name = reference.name
        if (own := self._own.get(name)) is not None:
            return [_of_own(reference, own)]
        versions = self._versions.get(name)
        if not versions:
            raise ModelNotFoundError(f"there is no model {name!r}; `inferd models list` shows what there is")
        if reference.version is not None:
            return [self._existing(name, reference.version)]
        alias = self._aliases.get(name, {}).get(reference.alias) if reference.alias else self._champion(name)
        if alias is not None:
            return [self._existing(name, _version_of(alias, routing_key))]
        if reference.alias is not None:
            raise VersionNotFoundError(f"model {name!r} has no alias {reference.alias!r}")
        return [versions[number] for number in sorted(versions, reverse=True)]

    def rows_scored_alone(self) -> int:
        """Rows of versions that score them one by one. It grows while such a version scores a micro-batch."""
        return sum(
            version.served.runtime.rows_scored
            for version in self.versions()
            if version.served is not None and isinstance(version.served.runtime, RowByRow)
        )

    def _champion(self, name: str) -> Alias | None:
        return self._aliases.get(name, {}).get(CHAMPION)

    def _existing(self, name: str, number: int) -> Version:
        version = self.version(name, number)
        if version is None:
            raise VersionNotFoundError(f"model {name!r} has no version {number}")
        return version


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _identity(version: Version) -> tuple[str, int, str]:
    manifest = version.manifest
    return manifest.model_id, manifest.version, manifest.sha256


def _of_own(reference: ModelReference, own: Version) -> Version:
    number = own.manifest.version
    if reference.alias is not None or reference.version not in (None, number):
        raise VersionNotFoundError(f"model {reference.name!r} is served by user code, only as version {number}")
    return own


def _unavailable_reason(version: Version) -> str:
    return f": {version.reason}" if version.reason else ""


def _version_of(alias: Alias, routing_key: bytes) -> int:
    if alias.version is not None:
        return alias.version
    return int(versions_of(alias.split or [], (routing_key,))[0])
