"""Forwards requests about jobs to the worker that owns them, once, with the headers that the route reads; and asks all
workers for what they know.

The caller's bearer token is not forwarded: the owner gets a pass (`peers`). From the owner's response only a status
that the route can have, an error with a known code, and a bounded or streamed body of the route's media type are
returned to the caller.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Protocol, TypedDict

import msgspec
import structlog
from aiohttp import (
    ClientConnectorCertificateError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    TCPConnector,
    hdrs,
    web,
)
from yarl import URL

from inferd.daemon.http.core import (
    ACCESS,
    ANY_TENANT,
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
    token_tenant,
)
from inferd.schemas.errors import CODES, ModelServingError
from inferd.schemas.headers import CORRELATION_HEADERS

PARTITIONS = "inferd-job-partitions"
"""Header of one worker's list of jobs: the partitions that the list covers."""
TIMEOUT = ClientTimeout(total=None, sock_connect=5.0, sock_read=45.0)
"""The time to receive applies to each piece of the response."""
SHORT_TIMEOUT = ClientTimeout(total=10.0, sock_connect=5.0)
PEER_TIMEOUT = ClientTimeout(total=4.0, sock_connect=2.0)
"""For what is asked of all workers: one that hangs must not hold the answer up."""
FORWARDED_HEADERS = (hdrs.CONTENT_TYPE, hdrs.ACCEPT, *CORRELATION_HEADERS)
"""Headers that the owner's route reads; not tokens, not cookies."""
SUCCEEDED = frozenset({200, 202})
JSON_BYTES_MAX, ERROR_BYTES_MAX = 16 * 1_048_576, 65_536
"""Limits of responses that are read into memory."""
PROOF_LIFETIME_S = 60.0
JSON = "application/json"
_NETWORK_ERRORS = (ClientError, TimeoutError, OSError)
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeError, ValueError)
log = structlog.get_logger(__name__)


class Group(Protocol):
    """The workers of a consumer group; each owns the jobs of its partitions."""

    def peers(self) -> frozenset[str]:
        """URLs of the other workers."""

    def owned_partitions(self, tenant: str) -> frozenset[int]:
        """The partitions whose jobs this worker owns."""

    def partitions(self, tenant: str) -> int:
        """How many partitions of a tenant's jobs are used."""


class Body:
    """The body of a request as it arrives; records the error that ended it."""

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


class _TooLargeError(ValueError):
    """A response exceeds the size limit."""


class _JobList(msgspec.Struct):
    jobs: list[msgspec.Raw]


class _JobId(msgspec.Struct):
    job_id: str


class _ErrorBody(msgspec.Struct):
    code: str
    message: str


class _ErrorResponse(msgspec.Struct):
    error: _ErrorBody


class Forwarding:
    """Sends requests to other workers over a shared connection pool."""

    def __init__(self, group: Group, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: how the certificates of other workers are checked; None: as aiohttp does."""
        self.group, self._tls = group, tls
        self._session: ClientSession | None = None
        self._proven_until: dict[str, float] = {}

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Closes the connections when the application stops; for `cleanup_ctx`."""
        yield
        if self._session is not None:
            await self._session.close()

    async def forward(
        self, request: web.Request, url: str, body: bytes | Body | None, media_type: str
    ) -> web.StreamResponse:
        """Returns the response of the worker at `url`; it has `media_type` unless it is an error.

        Raises `UnavailableError` if the worker does not respond, does not prove that it belongs to the group, or sends
        a response that its route cannot give, and if the request was forwarded before.
        """
        if is_forwarded(request):
            raise UnavailableError("the job has moved to another worker: the group is rebalancing; retry")
        await self._check(request, url)
        data = aiter(body) if isinstance(body, Body) else body
        try:
            async with self._opened().request(
                request.method, _target(request, url), data=data, **_options(request, url, TIMEOUT)
            ) as answer:
                return await _relayed(request, url, answer, media_type)
        except _NETWORK_ERRORS as error:
            if isinstance(body, Body) and body.error is not None:
                raise body.error from None
            raise _unreachable(url, error) from None

    async def jobs_of_peers(self, request: web.Request, tenant: str) -> list[bytes]:
        """Statuses (JSON) of the jobs that the other workers own.

        Raises `UnavailableError`, naming the worker that does not respond, or the partitions that no worker owns.
        """
        covered = set(self.group.owned_partitions(tenant))
        found: list[bytes] = []
        for partitions, jobs in await asyncio.gather(*(self._ask(request, url) for url in sorted(self.group.peers()))):
            covered |= partitions
            found += jobs
        if missing := sorted(set(range(self.group.partitions(tenant))) - covered):
            raise UnavailableError(f"no worker owns the jobs of partitions {missing}: the group is rebalancing; retry")
        return found

    async def _ask(self, request: web.Request, url: str) -> tuple[set[int], list[bytes]]:
        await self._check(request, url)
        try:
            async with self._opened().get(_target(request, url), **_options(request, url, SHORT_TIMEOUT)) as answer:
                body, covered = await _read(answer, JSON_BYTES_MAX), answer.headers.get(PARTITIONS)
        except _TooLargeError as error:
            raise _invalid_response(url, str(error)) from None
        except _NETWORK_ERRORS as error:
            raise _unreachable(url, error) from None
        if answer.status != 200 or covered is None:
            raise UnavailableError(f"the worker at {url} cannot list its jobs now (status {answer.status}); retry")
        try:
            jobs = [bytes(job) for job in msgspec.json.decode(body, type=_JobList).jobs]
            for job in jobs:
                _id_of(job)
            return {int(number) for number in covered.split(",") if number}, jobs
        except _DECODE_ERRORS as error:
            raise _invalid_response(url, f"a list of jobs that cannot be decoded: {error}") from None

    async def ask_peers(self, request: web.Request, path: str) -> dict[str, bytes | UnavailableError]:
        """What each other worker answers to GET `path`, for the same caller: a JSON object, or why there is none."""
        urls = sorted(self.group.peers())
        answers = await asyncio.gather(*(self._ask_peer(request, url, path) for url in urls))
        return dict(zip(urls, answers, strict=True))

    async def _ask_peer(self, request: web.Request, url: str, path: str) -> bytes | UnavailableError:
        scope = token_tenant(request) or ANY_TENANT
        passed = request.app[PEERS].pass_for(url, scope, hdrs.METH_GET, path)
        try:
            await self._check(request, url)
            async with self._opened().get(
                URL(url + path, encoded=True), headers={FORWARDED: passed}, allow_redirects=False, timeout=PEER_TIMEOUT
            ) as answer:
                body = await _read(answer, JSON_BYTES_MAX)
            if answer.status != HTTPStatus.OK:
                return UnavailableError(f"the worker at {url} answered with status {answer.status}")
            msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except UnavailableError as error:
            return error
        except _NETWORK_ERRORS as error:
            return _unreachable(url, error)
        except _DECODE_ERRORS as error:
            return _invalid_response(url, str(error))
        return body

    async def _check(self, request: web.Request, url: str) -> None:
        """Verifies that the worker at `url` belongs to the group before a request is sent to it."""
        peers, now = request.app[PEERS], asyncio.get_running_loop().time()
        if peers.secret is None:
            if request.app[ACCESS].requires_token:
                raise UnavailableError(
                    "this needs another worker; workers that require tokens forward requests only if all of them have"
                    " the same INFERD_HTTP_FORWARDING_SECRET_FILE"
                )
            return
        if self._proven_until.get(url, now) > now:
            return
        challenge = secrets.token_urlsafe(16)
        if not peers.proves(url, challenge, await self._proof(url, challenge)):
            log.warning("peer_unproven", url=url)
            raise UnavailableError(
                f"the worker at {url} cannot prove that it belongs to the group: it needs the same"
                " INFERD_HTTP_FORWARDING_SECRET_FILE, and INFERD_HTTP_ADVERTISED_URL must be its own URL"
            )
        self._proven_until = {each: until for each, until in self._proven_until.items() if until > now}
        self._proven_until[url] = now + PROOF_LIFETIME_S

    async def _proof(self, url: str, challenge: str) -> str:
        """The worker's proof for the challenge; empty if its response is not a proof."""
        try:
            async with self._opened().get(
                URL(url) / PEER_PATH.strip("/"),
                params={"challenge": challenge},
                allow_redirects=False,
                timeout=SHORT_TIMEOUT,
            ) as answer:
                return msgspec.json.decode(await _read(answer, ERROR_BYTES_MAX), type=PeerProof).proof
        except _NETWORK_ERRORS as error:
            raise _unreachable(url, error) from None
        except _DECODE_ERRORS:
            return ""

    def _opened(self) -> ClientSession:
        if self._session is None:
            # Admission limits the number of concurrent requests.
            connector = TCPConnector(limit=0, ssl=True if self._tls is None else self._tls)
            # Bodies are relayed and decoded as they are: aiohttp would ask for compressed ones.
            self._session = ClientSession(
                connector=connector, headers={hdrs.ACCEPT_ENCODING: "identity"}, auto_decompress=False, trust_env=False
            )
        return self._session


def is_forwarded(request: web.Request) -> bool:
    """Whether another worker forwarded the request."""
    return FORWARDED in request.headers


def merge_jobs(jobs: Sequence[bytes], others: Sequence[bytes], limit: int) -> list[bytes]:
    """The first `limit` statuses of both lists by job id, without duplicates."""
    by_id = {_id_of(job): job for job in (*others, *jobs)}
    return [by_id[job_id] for job_id in sorted(by_id)[:limit]]


def partitions_header(group: Group, tenant: str) -> str:
    """The value of the header `PARTITIONS`."""
    return ",".join(map(str, sorted(group.owned_partitions(tenant))))


def _id_of(job: bytes) -> str:
    return msgspec.json.decode(job, type=_JobId).job_id


def _target(request: web.Request, url: str) -> URL:
    return URL(url + request.rel_url.raw_path_qs, encoded=True)


class _Options(TypedDict):
    headers: list[tuple[str, str]]
    allow_redirects: bool
    timeout: ClientTimeout


def _options(request: web.Request, url: str, timeout: ClientTimeout) -> _Options:
    """Options of a forwarded request: tenant, pass (instead of the token), and the headers that the route reads."""
    tenant = tenant_of(request)
    peer_pass = request.app[PEERS].pass_for(url, tenant, request.method, request.rel_url.raw_path_qs)
    added = [(FORWARDED, peer_pass), (TENANT_HEADER, tenant), (REQUEST_HEADER, "1")]
    kept = [(name, value) for name in FORWARDED_HEADERS for value in request.headers.getall(name, ())]
    return {"headers": [*kept, *added], "allow_redirects": False, "timeout": timeout}


async def _relayed(request: web.Request, url: str, answer: ClientResponse, media_type: str) -> web.StreamResponse:
    if answer.status >= 400:
        raise await _error_of(url, answer)
    if answer.status not in SUCCEEDED:
        raise _invalid_response(url, f"status {answer.status}")
    if media_type != JSON:
        response = web.StreamResponse(status=answer.status, headers={**SAFE_HEADERS, hdrs.CONTENT_TYPE: media_type})
        return await send_streamed(request, response, answer.content.iter_any())
    try:
        body = await _read(answer, JSON_BYTES_MAX)
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _DECODE_ERRORS as error:
        raise _invalid_response(url, f"the body is not a JSON object: {error}") from None
    return json_bytes(body, answer.status)


async def _error_of(url: str, answer: ClientResponse) -> ModelServingError:
    """The error in a worker's response, to raise here; an unknown code becomes `unavailable`."""
    try:
        fault = msgspec.json.decode(await _read(answer, ERROR_BYTES_MAX), type=_ErrorResponse).error
    except _DECODE_ERRORS:
        return _invalid_response(url, f"status {answer.status} without a valid error body")
    kind = CODES.get(fault.code) or HTTP_CODES.get(fault.code)
    if kind is None or kind is UnauthorizedError:  # the caller's token is valid here: the pass was refused
        return _invalid_response(url, f"{fault.code}: {fault.message}")
    return kind(fault.message)


async def _read(answer: ClientResponse, bytes_max: int) -> bytes:
    """The whole body; raises `_TooLargeError` beyond `bytes_max`."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > bytes_max:
            answer.close()
            raise _TooLargeError(f"more than {bytes_max} bytes")
    return bytes(body)


def _unreachable(url: str, error: BaseException) -> UnavailableError:
    if isinstance(error, ClientConnectorCertificateError):
        return UnavailableError(
            f"the certificate of the worker at {url} is not accepted ({error.certificate_error}): it must name that"
            " host, and an authority of INFERD_HTTPS_CAFILE must have signed it"
        )
    return UnavailableError(f"the worker at {url} does not respond ({str(error) or type(error).__name__}); retry")


def _invalid_response(url: str, what: str) -> UnavailableError:
    log.warning("peer_response_invalid", url=url, reason=what[:300])
    return UnavailableError(f"the worker at {url} sent an invalid response ({what[:200]})")
