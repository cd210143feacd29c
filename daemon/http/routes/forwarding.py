"""Requests about jobs that other workers own: passed on to them, once, with what their routes read of the request.

A caller's bearer token stays here: the owner gets a pass (`peers`). Of its answer nothing is passed back but a status
that a route can have, an error of a known code, and a bounded or streamed body under the media type of the route.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypedDict

import msgspec
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, hdrs, web
from yarl import URL

from inferd.daemon.http.core import (
    ACCESS,
    FORWARDED,
    HTTP_CODES,
    PEER_PATH,
    PEERS,
    REQUEST_HEADER,
    SAFE_HEADERS,
    TENANT_HEADER,
    PeerProof,
    UnauthorizedError,
    UnavailableError,
    json_bytes,
    send_streamed,
    tenant_of,
)
from inferd.schemas.errors import CODES, ModelServingError
from inferd.schemas.headers import CORRELATION_HEADERS

PARTITIONS = "inferd-job-partitions"
"""Goes with the list of jobs that one worker owns: the partitions that these are all the jobs of."""
TIMEOUT = ClientTimeout(total=None, sock_connect=5.0, sock_read=45.0)
"""An owner may take its time for a job's messages; of a long answer, each piece has this time anew."""
SHORT_TIMEOUT = ClientTimeout(total=10.0, sock_connect=5.0)
PASSED_ON = (hdrs.CONTENT_TYPE, hdrs.ACCEPT, *CORRELATION_HEADERS)
"""Headers that the owner's route reads. Tokens and cookies are not among them."""
SUCCEEDED = frozenset({200, 202})
JSON_BYTES_MAX, ERROR_BYTES_MAX = 16 * 1_048_576, 65_536
"""Of an answer that is read whole."""
PROVEN_FOR_S = 60.0
JSON = "application/json"
_UNREACHED = (ClientError, TimeoutError, OSError)
_UNREADABLE = (msgspec.DecodeError, UnicodeError, ValueError)
log = structlog.get_logger(__name__)


class Group(Protocol):
    """The workers that own jobs, each those of some partitions."""

    def peers(self) -> frozenset[str]:
        """URLs of the other workers."""

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """The partitions whose jobs this worker owns."""

    @property
    def partitions(self) -> int:
        """How many there are."""


class Body:
    """The body of a request as it comes; keeps the error that ended it."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.error: ModelServingError | None = None
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield piece
        except ModelServingError as error:
            self.error = error
            raise


class _TooLongError(ValueError):
    """An answer is larger than it may be."""


class _Listed(msgspec.Struct):
    jobs: list[msgspec.Raw]


class _Named(msgspec.Struct):
    job_id: str


class _Fault(msgspec.Struct):
    code: str
    message: str


class _Refused(msgspec.Struct):
    error: _Fault


class Forwarding:
    """Asks other workers, over one pool of connections."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._session: ClientSession | None = None
        self._proven_until: dict[str, float] = {}

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Closes the connections when the application ends; for `cleanup_ctx`."""
        yield
        if self._session is not None:
            await self._session.close()

    async def pass_on(
        self, request: web.Request, url: str, body: bytes | Body | None, media_type: str
    ) -> web.StreamResponse:
        """Answers with what the worker at `url` answers, which is of `media_type` unless it is an error.

        `UnavailableError` where the worker does not answer, does not prove that it is one of the group, or answers
        what its route does not, and where the request was passed on before.
        """
        if is_forwarded(request):
            raise UnavailableError("the job belongs to another worker by now: the group is rebalancing; ask again")
        await self._check(request, url)
        data = aiter(body) if isinstance(body, Body) else body
        try:
            async with self._opened().request(
                request.method, _target(request, url), data=data, **_options(request, url, TIMEOUT)
            ) as answer:
                return await _relayed(request, url, answer, media_type)
        except _UNREACHED as error:
            if isinstance(body, Body) and body.error is not None:
                raise body.error from None
            raise _silent(url, error) from None

    async def listed_by_peers(self, request: web.Request, tenant: str) -> list[bytes]:
        """Statuses (JSON) of the jobs that other workers own, as they list them themselves.

        `UnavailableError` naming the worker that does not answer, or the partitions that nobody answers for.
        """
        covered = set(self.group.owned_partitions(tenant))
        found: list[bytes] = []
        for partitions, jobs in await asyncio.gather(*(self._ask(request, url) for url in sorted(self.group.peers()))):
            covered |= partitions
            found += jobs
        if missing := sorted(set(range(self.group.partitions)) - covered):
            raise UnavailableError(f"no worker has the jobs of partitions {missing} now: the group is rebalancing")
        return found

    async def _ask(self, request: web.Request, url: str) -> tuple[set[int], list[bytes]]:
        await self._check(request, url)
        try:
            async with self._opened().get(_target(request, url), **_options(request, url, SHORT_TIMEOUT)) as answer:
                body, told = await _read(answer, JSON_BYTES_MAX), answer.headers.get(PARTITIONS)
        except _TooLongError as error:
            raise _unexpected(url, str(error)) from None
        except _UNREACHED as error:
            raise _silent(url, error) from None
        if answer.status != 200 or told is None:
            raise UnavailableError(f"the worker at {url} cannot list its jobs now (status {answer.status}); ask again")
        try:
            jobs = [bytes(job) for job in msgspec.json.decode(body, type=_Listed).jobs]
            for job in jobs:
                _id_of(job)
            return {int(number) for number in told.split(",") if number}, jobs
        except _UNREADABLE as error:
            raise _unexpected(url, f"a list of jobs that cannot be read: {error}") from None

    async def _check(self, request: web.Request, url: str) -> None:
        """Makes sure that the worker at `url` is one of the group before anything is sent to it."""
        peers, now = request.app[PEERS], asyncio.get_running_loop().time()
        if peers.secret is None:
            if request.app[ACCESS].guarded:
                raise UnavailableError(
                    "the job belongs to another worker, and workers with tokens pass requests on only where all of them"
                    " have the same INFERD_HTTP_FORWARDING_SECRET_FILE"
                )
            return
        if self._proven_until.get(url, now) > now:
            return
        challenge = secrets.token_urlsafe(16)
        if not peers.proves(url, challenge, await self._proof(url, challenge)):
            log.warning("peer_unproven", url=url)
            raise UnavailableError(
                f"the worker at {url} does not prove that it belongs to the group: it needs the same"
                " INFERD_HTTP_FORWARDING_SECRET_FILE, and must answer where it says (INFERD_HTTP_ADVERTISED_URL)"
            )
        self._proven_until = {each: until for each, until in self._proven_until.items() if until > now}
        self._proven_until[url] = now + PROVEN_FOR_S

    async def _proof(self, url: str, challenge: str) -> str:
        """What the worker answers to the challenge; nothing where it is no answer."""
        try:
            async with self._opened().get(
                URL(url) / PEER_PATH.strip("/"),
                params={"challenge": challenge},
                allow_redirects=False,
                timeout=SHORT_TIMEOUT,
            ) as answer:
                return msgspec.json.decode(await _read(answer, ERROR_BYTES_MAX), type=PeerProof).proof
        except _UNREACHED as error:
            raise _silent(url, error) from None
        except _UNREADABLE:
            return ""

    def _opened(self) -> ClientSession:
        if self._session is None:
            # How many requests there are at once is bounded where they come in.
            self._session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False, trust_env=False)
        return self._session


def is_forwarded(request: web.Request) -> bool:
    """Whether another worker has passed the request on."""
    return FORWARDED in request.headers


def merged(jobs: Sequence[bytes], others: Sequence[bytes], limit: int) -> list[bytes]:
    """The first `limit` of all these statuses, by job id, each job once."""
    by_id = {_id_of(job): job for job in (*others, *jobs)}
    return [by_id[job_id] for job_id in sorted(by_id)[:limit]]


def told_partitions(group: Group, tenant: str) -> str:
    """What the header `PARTITIONS` says."""
    return ",".join(map(str, sorted(group.owned_partitions(tenant))))


def _id_of(job: bytes) -> str:
    return msgspec.json.decode(job, type=_Named).job_id


def _target(request: web.Request, url: str) -> URL:
    return URL(url + request.rel_url.raw_path_qs, encoded=True)


class _Options(TypedDict):
    headers: list[tuple[str, str]]
    allow_redirects: bool
    timeout: ClientTimeout


def _options(request: web.Request, url: str, timeout: ClientTimeout) -> _Options:
    """Of a request that is passed on: the tenant, a pass in place of the token, and what the route reads."""
    tenant = tenant_of(request)
    passed = request.app[PEERS].pass_for(url, tenant, request.method, request.rel_url.raw_path_qs)
    own = [(FORWARDED, passed), (TENANT_HEADER, tenant), (REQUEST_HEADER, "1")]
    kept = [(name, value) for name in PASSED_ON for value in request.headers.getall(name, ())]
    return {"headers": [*kept, *own], "allow_redirects": False, "timeout": timeout}


async def _relayed(request: web.Request, url: str, answer: ClientResponse, media_type: str) -> web.StreamResponse:
    if answer.status >= 400:
        raise await _error_of(url, answer)
    if answer.status not in SUCCEEDED:
        raise _unexpected(url, f"status {answer.status}")
    if media_type != JSON:
        response = web.StreamResponse(status=answer.status, headers={**SAFE_HEADERS, hdrs.CONTENT_TYPE: media_type})
        return await send_streamed(request, response, answer.content.iter_any())
    try:
        body = await _read(answer, JSON_BYTES_MAX)
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _UNREADABLE as error:
        raise _unexpected(url, f"no JSON object: {error}") from None
    return json_bytes(body, answer.status)


async def _error_of(url: str, answer: ClientResponse) -> ModelServingError:
    """The error that a worker answered, as an error of this one; a code that none has is `unavailable`."""
    try:
        fault = msgspec.json.decode(await _read(answer, ERROR_BYTES_MAX), type=_Refused).error
    except _UNREADABLE:
        return _unexpected(url, f"status {answer.status} without an error that can be read")
    kind = CODES.get(fault.code) or HTTP_CODES.get(fault.code)
    if kind is None or kind is UnauthorizedError:  # the caller's token was checked here: it is the pass that is refused
        return _unexpected(url, f"{fault.code}: {fault.message}")
    return kind(fault.message)


async def _read(answer: ClientResponse, bytes_max: int) -> bytes:
    """The whole body; `_TooLongError` where it is larger."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > bytes_max:
            answer.close()
            raise _TooLongError(f"more than {bytes_max} bytes")
    return bytes(body)


def _silent(url: str, error: BaseException) -> UnavailableError:
    return UnavailableError(f"the worker at {url} does not answer ({str(error) or type(error).__name__}); ask again")


def _unexpected(url: str, what: str) -> UnavailableError:
    log.warning("peer_answer_refused", url=url, reason=what[:300])
    return UnavailableError(f"the worker at {url} gave an answer that cannot be passed on ({what[:200]})")
