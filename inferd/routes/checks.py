"""Checks of a route against the models and the other routes of a tenant."""

from __future__ import annotations

from collections.abc import Iterable

from inferd.models import ModelList, manifest_behind
from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.requests import OUTPUTS, ModelReference
from inferd.schemas.routes import Route, RouteExistsError, conflict, is_own, own_topic_refusal

_SHOWN = 20


def check_fits(route: Route, models: ModelList) -> None:
    """`SchemaMismatchError` for a feature, `InvalidValueError` for an output that the model does not have.

    `ModelNotFoundError` or `VersionNotFoundError` without the model.
    """
    manifest = manifest_behind(models, ModelReference.parse(route.model))
    names = [feature.name for feature in manifest.features]
    for name in (*route.features, *route.constants):
        if name not in names:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            raise SchemaMismatchError(f"feature {name[:80]!r}: the model {route.model} has the features {shown}")
    own = manifest.output_names or []
    for name in route.outputs or ():
        if name not in OUTPUTS and name not in own:
            raise InvalidValueError(f"outputs: the model {route.model} has no output {name[:80]!r}")


def check_beside(route: Route, others: Iterable[Route], namespace: str, group_id: str) -> None:
    """`InvalidValueError` for topics that no route may use, `RouteExistsError` if another route is in the way."""
    for topic in (*route.source.topics, route.sink.topic):
        if is_own(topic, namespace, group_id):
            raise InvalidValueError(own_topic_refusal(topic))
    if (reason := conflict(route, list(others))) is not None:
        raise RouteExistsError(f"route {route.name}: {reason}")
