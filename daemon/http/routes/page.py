"""The page at `/`: files that every worker serves without a token. It reads its data from the other routes."""

from __future__ import annotations

from aiohttp import ETag, web

from inferd.daemon.http.core import SAFE_HEADERS, NotFoundError, files_of_page

POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Nothing from other sites, and no script or style inside the page."""
HEADERS = {
    **SAFE_HEADERS,
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: files change with the version of a worker
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}


def add_page(app: web.Application) -> None:
    """Adds the page and its files."""
    app.router.add_get("/", send_file)
    app.router.add_get("/page/{file}", send_file)


async def send_file(request: web.Request) -> web.Response:
    """A file; 304 if the caller has it already."""
    file = files_of_page().get(request.path)
    if file is None:
        raise NotFoundError(f"the page has no file {request.match_info['file'][:80]!r}")
    etag = ETag(file.etag)
    if etag in (request.if_none_match or ()):
        response = web.Response(status=304, headers=HEADERS)
    else:
        response = web.Response(body=file.content, headers={**HEADERS, "Content-Type": file.content_type})
    response.etag = etag
    return response
