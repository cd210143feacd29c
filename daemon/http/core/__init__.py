"""The parts that all HTTP servers share: sockets, request bodies, authentication, admission and errors."""

from inferd.daemon.http.core.access import (
    ACCESS,
    TENANT_HEADER,
    Access,
    Caller,
    caller_of,
    charged_tenant,
    check_tenant,
    tenant_of,
    token_tenant,
)
from inferd.daemon.http.core.admission import ADMISSION, Admission
from inferd.daemon.http.core.application import LIMITS, AppLimits, create_app
from inferd.daemon.http.core.bodies import BodyReader, codec_of_request, content_coding, read_body
from inferd.daemon.http.core.body_types import (
    Form,
    Health,
    JobBody,
    JobsAnswer,
    Live,
)
from inferd.daemon.http.core.browsers import REQUEST_HEADER, allowed_hosts_of
from inferd.daemon.http.core.errors import (
    HTTP_CODES,
    SAFE_HEADERS,
    ForbiddenError,
    NotAcceptableError,
    NotFoundError,
    RequestTimeoutError,
    Respond,
    UnauthorizedError,
    UnavailableError,
    error_response,
    json_bytes,
    json_response,
    typed_response,
)
from inferd.daemon.http.core.expansion import IDENTITY
from inferd.daemon.http.core.page_files import files_of_page
from inferd.daemon.http.core.peers import (
    CHALLENGE_CHARS_MAX,
    FORWARDED,
    PEER_PATH,
    PEERS,
    PeerProof,
    Peers,
    add_peer,
    read_peer_secret,
)
from inferd.daemon.http.core.roles import MEANINGS, ROLES, ROLES_OF, Role, RouteKey
from inferd.daemon.http.core.server import HttpServer, Listener
from inferd.daemon.http.core.shares import Shares
from inferd.daemon.http.core.streamed import send_streamed
from inferd.daemon.http.core.tls import peer_context, server_context
from inferd.daemon.http.core.tokens import ANY_TENANT, TokensFile, read_tokens
from inferd.daemon.http.core.traffic import TRAFFIC

__all__ = [
    "ACCESS",
    "ADMISSION",
    "ANY_TENANT",
    "CHALLENGE_CHARS_MAX",
    "FORWARDED",
    "HTTP_CODES",
    "IDENTITY",
    "LIMITS",
    "MEANINGS",
    "PEERS",
    "PEER_PATH",
    "REQUEST_HEADER",
    "ROLES",
    "ROLES_OF",
    "SAFE_HEADERS",
    "TENANT_HEADER",
    "TRAFFIC",
    "Access",
    "Admission",
    "AppLimits",
    "BodyReader",
    "Caller",
    "ForbiddenError",
    "Form",
    "Health",
    "HttpServer",
    "JobBody",
    "JobsAnswer",
    "Listener",
    "Live",
    "NotAcceptableError",
    "NotFoundError",
    "PeerProof",
    "Peers",
    "RequestTimeoutError",
    "Respond",
    "Role",
    "RouteKey",
    "Shares",
    "TokensFile",
    "UnauthorizedError",
    "UnavailableError",
    "add_peer",
    "allowed_hosts_of",
    "caller_of",
    "charged_tenant",
    "check_tenant",
    "codec_of_request",
    "content_coding",
    "create_app",
    "error_response",
    "files_of_page",
    "json_bytes",
    "json_response",
    "peer_context",
    "read_body",
    "read_peer_secret",
    "read_tokens",
    "send_streamed",
    "server_context",
    "tenant_of",
    "token_tenant",
    "typed_response",
]
