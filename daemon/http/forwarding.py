"""Requests about jobs that other workers own: passed on to them, once, with all that the caller sent.

All workers share their file of tokens, so that the owner checks the caller's own token, and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, hdrs, web
from yarl import URL

from daemon.http.errors import SAFE_HEADERS, UnavailableError
from daemon.http.streamed import send_streamed
from schemas.errors import ModelServingError

FORWARDED = "inferd-forwarded"
"""Goes with a request that was passed on: whoever gets it answers by himself."""
PARTITIONS = "inferd-job-partitions"
"""Goes with the list of jobs that one worker owns: the partitions that these are all the jobs of."""
TIMEOUT = ClientTimeout(total=None, sock_connect=5.0, sock_read=45.0)
"""An owner may take its time for a job's messages; of a long answer, each piece has this time anew."""
LIST_TIMEOUT = ClientTimeout(total=10.0, sock_connect=5.0)
KEPT_TO_ITSELF = frozenset(
    name.lower()
    for name in (
        *(hdrs.HOST, hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TRANSFER_ENCODING, hdrs.TE, hdrs.TRAILER, hdrs.UPGRADE),
        *(hdrs.PROXY_AUTHORIZATION, hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING, hdrs.ACCEPT_ENCODING, hdrs.EXPECT),
    )
)
"""Headers about one connection, and about a body as it came, which is expanded by then."""
PASSED_BACK = (hdrs.CONTENT_TYPE, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE, hdrs.ALLOW, hdrs.CONTENT_DISPOSITION)
_UNREACHED = (ClientError, TimeoutError, OSError)


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


class _Listed(msgspec.Struct):
    jobs: list[msgspec.Raw]


class _Named(msgspec.Struct):
    job_id: str


class Forwarding:
    """Asks other workers, over one pool of connections."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._session: ClientSession | None = None

    async def running(self, _app: web.Application) -> AsyncIterator[None]:
        """Lets go of the connections when the application ends; for `cleanup_ctx`."""
        yield
        if self._session is not None:
            await self._session.close()

    async def pass_on(self, request: web.Request, url: str, body: bytes | Body | None) -> web.StreamResponse:
        """Answers with what the worker at `url` answers; `UnavailableError` where it does not, or where the request
        was passed on before."""
        if is_forwarded(request):
            raise UnavailableError("the job belongs to another worker by now: the group is rebalancing; ask again")
        target = URL(url + request.rel_url.raw_path_qs, encoded=True)
        data = aiter(body) if isinstance(body, Body) else body
        try:
            async with self._opened().request(
                request.method, target, data=data, headers=_passed_on(request), allow_redirects=False, timeout=TIMEOUT
            ) as answer:
                return await _pass_back(request, answer)
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
            raise UnavailableError(f"nobody has the jobs of partitions {missing} now: the group is rebalancing")
        return found

    async def _ask(self, request: web.Request, url: str) -> tuple[set[int], list[bytes]]:
        target = URL(url + request.rel_url.raw_path_qs, encoded=True)
        try:
            async with self._opened().get(
                target, headers=_passed_on(request), allow_redirects=False, timeout=LIST_TIMEOUT
            ) as answer:
                body, told = await answer.read(), answer.headers.get(PARTITIONS)
        except _UNREACHED as error:
            raise _silent(url, error) from None
        if answer.status != 200 or told is None:
            raise UnavailableError(f"the worker at {url} cannot list its jobs now (status {answer.status}); ask again")
        jobs = msgspec.json.decode(body, type=_Listed).jobs
        return {int(number) for number in told.split(",") if number}, [bytes(job) for job in jobs]

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
    by_id = {msgspec.json.decode(job, type=_Named).job_id: job for job in (*others, *jobs)}
    return [by_id[job_id] for job_id in sorted(by_id)[:limit]]


def told_partitions(group: Group, tenant: str) -> str:
    """What the header `PARTITIONS` says."""
    return ",".join(map(str, sorted(group.owned_partitions(tenant))))


def _passed_on(request: web.Request) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in request.headers.items() if name.lower() not in KEPT_TO_ITSELF]
    return [*kept, (FORWARDED, "1")]


async def _pass_back(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    headers = {str(name): answer.headers[name] for name in PASSED_BACK if name in answer.headers}
    response = web.StreamResponse(status=answer.status, headers=SAFE_HEADERS | headers)
    response.content_length = answer.content_length
    return await send_streamed(request, response, answer.content.iter_any())


def _silent(url: str, error: BaseException) -> UnavailableError:
    return UnavailableError(f"the worker at {url} does not answer ({str(error) or type(error).__name__}); ask again")
