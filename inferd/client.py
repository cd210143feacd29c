"""The asyncio client: predictions and deploys over Kafka. Needs neither Faust nor LightGBM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inferd.cluster import Cluster
from inferd.exchange import Call, Exchange, SentCall
from inferd.model_list import ModelList, check_alias_target, check_deployable, keys_to_remove, orphaned_parts
from inferd.model_records import read_models, send_alias, send_artifact, send_manifest, send_tombstones
from inferd.pending import PendingRequests
from inferd.pipeline import sent_ahead
from schemas.connection import KafkaConnection
from schemas.headers import Encoding, RawHeaders
from schemas.limits import DEFAULT_LIMITS, Limits
from schemas.manifest_checks import check_alias
from schemas.models import Alias, AliasKey, Manifest, VersionKey, check_model_name
from schemas.requests import ModelReference, Output
from schemas.result_codec import decode_result
from schemas.results import Failure, Prediction, Result
from schemas.topics import TenantTopics

DEFAULT_CONNECTION = KafkaConnection()
TIMEOUT_S = 30.0
WINDOW = 512


class Client:
    """One tenant's way to its models. Use it with `async with`, or call `start` and `stop`.

    `connection` is a `KafkaConnection` or just `host:port,…`. Results are read from the tenant's results topic by a
    consumer without a group; `partitions` restricts the client to those partitions of requests and results, so that it
    reads fewer results of others. Every method raises `BrokerUnreachableError`, `AccessDeniedError` or
    `TopicNotFoundError` (all `ServerError`s) where the cluster does not do its part.
    """

    def __init__(
        self,
        connection: KafkaConnection | str = DEFAULT_CONNECTION,
        *,
        namespace: str = "inferd",
        tenant: str = "default",
        encoding: Encoding = "msgpack",
        partitions: Sequence[int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout_s: float = 10.0,
    ) -> None:
        if isinstance(connection, str):
            connection = KafkaConnection(connection)
        self._limits = limits
        pending = PendingRequests(partial(decode_result, limits=limits))
        client_id = f"inferd-client-{pending.client_id}"
        self._cluster = Cluster(connection, TenantTopics(namespace, tenant), client_id, limits, connect_timeout_s)
        self._exchange = Exchange(self._cluster, pending, encoding, limits, partitions)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connects to the cluster."""
        await self._cluster.start()

    async def stop(self) -> None:
        """Disconnects; requests that still wait for their result get `ClientClosedError`."""
        await self._exchange.stop()
        await self._cluster.stop()

    async def predict(
        self,
        model_id: str,
        input_data: Any,
        *,
        outputs: Sequence[Output] | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Prediction:
        """What the model says to a row (list or dict), to rows, or to an array (rows, features).

        `model_id` is `name`, `name:version` or `name@alias`; `key` becomes the record's key, so that requests of one
        key are answered in order. Headers such as `deadline`, `priority` and `correlation-id` go along.
        Raises the typed `InferenceError` that the worker answered with (after sending again what may pass, such as
        `model_not_ready`), or `ResultTimeoutError`.
        """
        call = Call(model_id, input_data, outputs, _bytes(key), _raw_headers(headers))
        result = await self._exchange.result(await self._exchange.send(call, timeout_s))
        if isinstance(result, Failure):
            raise result.error()
        return result

    async def predict_many(
        self,
        model_id: str,
        rows: Iterable[Any] | AsyncIterable[Any],
        *,
        outputs: Sequence[Output] | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        timeout_s: float = TIMEOUT_S,
        window: int = WINDOW,
    ) -> AsyncGenerator[Result, None]:
        """The result of each item of `rows` (each is one request's `input_data`), in their order.

        What a worker refuses comes as a `Failure` among the results. At most `window` requests are on their way at a
        time. `ResultTimeoutError` when a result did not come within `timeout_s` of its request.
        """
        raw_headers = _raw_headers(headers)
        calls = partial(Call, model_id, outputs=outputs, headers=raw_headers)

        async def send(item: Any) -> SentCall:
            sent = await self._exchange.send(calls(item), timeout_s)
            self._exchange.watch(sent)
            return sent

        async with aclosing(sent_ahead(send, rows, window, self._exchange.abandon)) as on_their_way:
            async for sent in on_their_way:
                yield await self._exchange.result(sent)

    async def deploy_model(
        self, model: bytes | str | Path, manifest: Manifest, *, alias: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> Manifest:
        """Deploys the version that `manifest` describes, and points `alias` at it; returns once the broker has it all.

        `model` is the model file's bytes or its path. Workers try the version before they serve it. `InvalidValueError`
        where the manifest is not this model's, `VersionExistsError` where the version is there and differs. For a
        manifest made from the model file see `inferd.deploy.manifest_from_file`.
        """
        data = model if isinstance(model, bytes) else await asyncio.to_thread(Path(model).read_bytes)
        check_deployable(await self.models(timeout_s=timeout_s), data, manifest, self._limits)
        await send_artifact(self._cluster, data, manifest.sha256, self._limits.artifact_part_bytes_max)
        await send_manifest(self._cluster, manifest)
        if alias is not None:
            key = AliasKey(manifest.model_id, check_model_name(alias))
            await send_alias(self._cluster, key, Alias(version=manifest.version))
        return manifest

    async def set_alias(self, model_id: str, alias: str, target: Alias, *, timeout_s: float = TIMEOUT_S) -> None:
        """Points `model_id@alias` at a version, or splits it; returns once the broker has it.

        `ModelNotFoundError` or `VersionNotFoundError` where a version that `target` names is not there.
        """
        key = AliasKey(check_model_name(model_id), check_model_name(alias))
        check_alias_target(await self.models(timeout_s=timeout_s), key, check_alias(target))
        await send_alias(self._cluster, key, target)

    async def remove_model(
        self, reference: str, *, everything: bool = False, timeout_s: float = TIMEOUT_S
    ) -> list[str]:
        """Removes `name:version`, `name@alias`, or, where `everything` is asked for, all of `name`.

        Returns the keys of the removed records. `ModelNotFoundError` or `VersionNotFoundError` where there is none.
        """
        models = await self.models(timeout_s=timeout_s)
        removed = keys_to_remove(models, ModelReference.parse(reference), everything=everything)
        await send_tombstones(self._cluster, "models", removed)
        orphans = orphaned_parts(models, removed, self._limits.artifact_part_bytes_max)
        await send_tombstones(self._cluster, "model-artifacts", orphans)
        return [str(key) for key in removed]

    async def list_models(self, *, timeout_s: float = TIMEOUT_S) -> list[Manifest]:
        """The deployed versions, by name and number. Whether a worker serves them is in its `/status`."""
        models = await self.models(timeout_s=timeout_s)
        return [models.versions[key] for key in sorted(models.versions, key=_version_order)]

    async def models(self, *, timeout_s: float = TIMEOUT_S) -> ModelList:
        """Versions, aliases and unreadable records of the `models` topic as it is now."""
        return await read_models(self._cluster, timeout_s)


def _version_order(key: VersionKey) -> tuple[str, int]:
    return key.model_id, key.version


def _bytes(text: str | bytes | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _raw_headers(headers: Mapping[str, str | bytes] | None) -> RawHeaders:
    return tuple((name, value.encode() if isinstance(value, str) else value) for name, value in (headers or {}).items())
