"""The files of the page in `daemon/http/page/`, which every worker serves without a token."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from pathlib import PurePath

import msgspec

FOLDER = "/page/"
"""Their path over HTTP."""
INDEX = "index.html"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class PageFile(msgspec.Struct, frozen=True):
    """A file of the page."""

    content: bytes
    content_type: str
    etag: str
    """Changes with the content."""


@cache
def files_of_page() -> dict[str, PageFile]:
    """The files by their path over HTTP; the page itself is `/`."""
    found = {}
    for entry in (resources.files("inferd.daemon.http") / "page").iterdir():
        content_type = CONTENT_TYPES.get(PurePath(entry.name).suffix)
        if content_type is not None:
            content = entry.read_bytes()
            path = "/" if entry.name == INDEX else FOLDER + entry.name
            found[path] = PageFile(content, content_type, hashlib.sha256(content).hexdigest()[:32])
    return found
