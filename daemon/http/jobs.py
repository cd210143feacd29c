"""`/jobs…`: batch jobs of a tenant, answered by any worker whichever owns the job."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from daemon.http.access import tenant_of
from daemon.http.application import LIMITS
from daemon.http.bodies import encoding_of, read_body
from daemon.http.errors import SAFE_HEADERS, json_bytes
from daemon.http.services import Jobs
from schemas.errors import InvalidValueError, MalformedError
from schemas.headers import Encoding
from schemas.jobs import PHASES
from schemas.requests import check_id
from schemas.strict import DECODE_ERRORS
from schemas.strict_json import repeats_key
from schemas.strict_msgpack import header

JOBS: web.AppKey[Jobs] = web.AppKey("jobs", Jobs)
LISTED_MAX, LISTED_DEFAULT = 1_000, 100
NDJSON = "application/x-ndjson"
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_FIELDS: dict[Encoding, Any] = {
    "json": msgspec.json.Decoder(dict[str, msgspec.Raw]).decode,
    "msgpack": msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode,
}
_TEXT: dict[Encoding, Any] = {
    "json": msgspec.json.Decoder(str | None).decode,
    "msgpack": msgspec.msgpack.Decoder(str | None).decode,
}
_ENCODE: dict[Encoding, Any] = {"json": msgspec.json.encode, "msgpack": msgspec.msgpack.encode}


def add_jobs(app: web.Application, jobs: Jobs) -> None:
    """Adds `/jobs…`, answered by `jobs`."""
    app[JOBS] = jobs
    app.add_routes(
        [
            web.post("/jobs", submit_job),
            web.get("/jobs", list_jobs),
            web.get("/jobs/{job_id}", show_job),
            web.get("/jobs/{job_id}/results", job_results, allow_head=False),
            web.post("/jobs/{job_id}/cancel", cancel_job),
            web.post("/jobs/{job_id}/retry", retry_job),
        ]
    )


async def submit_job(request: web.Request) -> web.StreamResponse:
    """Opens a job with all of its rows: 202 and its status."""
    tenant, encoding = tenant_of(request), encoding_of(request)
    job_id, message = submission(await read_body(request, request.app[LIMITS].body), encoding)
    return json_bytes(await request.app[JOBS].submit(tenant, job_id, message, encoding), 202)


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Statuses of the tenant's jobs, by job id, a page at a time."""
    tenant, query = tenant_of(request), request.query
    limit = _number(query.get("limit", str(LISTED_DEFAULT)), "limit", LISTED_MAX)
    status, after = query.get("status"), query.get("after")
    if status is not None and status not in PHASES:
        raise InvalidValueError(f"query parameter status={status[:80]!r}: there are {', '.join(PHASES)}")
    if after is not None:
        check_id(after)
    found = await request.app[JOBS].list_jobs(tenant, status=status, limit=limit, after=after)
    return json_bytes(b'{"jobs":[%s]}' % b",".join(found))


async def show_job(request: web.Request) -> web.StreamResponse:
    """The job's latest status."""
    tenant, job_id = tenant_of(request), check_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].status(tenant, job_id))


async def job_results(request: web.Request) -> web.StreamResponse:
    """A line of JSON a row, in row order, as they are read."""
    tenant, job_id = tenant_of(request), check_id(request.match_info["job_id"])
    from_row = _number(request.query.get("from_row", "0"), "from_row", 10**12)
    lines = request.app[JOBS].results(tenant, job_id, from_row=from_row)
    # What is wrong with the job is told before the first line, while there still is a status to tell it with.
    first = await anext(lines, b"")
    response = web.StreamResponse(headers={**SAFE_HEADERS, "Content-Type": NDJSON})
    await response.prepare(request)
    await response.write(first)
    async for line in lines:
        await response.write(line)
    await response.write_eof()
    return response


async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Ends a job: 202 and its status."""
    tenant, job_id = tenant_of(request), check_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].cancel(tenant, job_id), 202)


async def retry_job(request: web.Request) -> web.StreamResponse:
    """Scores the failed rows of a job again: 202 and its status."""
    tenant, job_id = tenant_of(request), check_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].retry(tenant, job_id), 202)


def submission(body: bytes, encoding: Encoding) -> tuple[str | None, bytes]:
    """The job id, if the body has one, and the wire's `submit` message that the rest is.

    `MalformedError` where it is no object whose fields come once each, `InvalidIdError` for the job id.
    """
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[encoding](body)
        given = fields.pop("job_id", None)
        job_id = None if given is None else _TEXT[encoding](given)
    except DECODE_ERRORS as error:
        raise MalformedError(f"body: expected an object with job_id (text) and the fields of a job: {error}") from None
    count = len(fields) + (given is not None)
    if header(body)[1] != count if encoding == "msgpack" else repeats_key(body):
        raise MalformedError("body: a field comes twice")
    if "type" in fields:
        raise MalformedError("body: unknown field type")
    message: bytes = _ENCODE[encoding]({"type": "submit", **fields})
    return None if job_id is None else check_id(job_id), message


def _number(text: str, name: str, most: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise InvalidValueError(f"query parameter {name}={text[:80]!r}: it must be a number from 0 to {most}")
    return int(text)
