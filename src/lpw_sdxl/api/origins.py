"""The web pages that may send requests: a browser passes them on to any server it can reach.

A page's origin is ours if it is the host that the request names, by its address or by a name that
is the server's own. Any other name is not enough: its owner can point it to this server (DNS
rebinding), which only a token prevents. Other origins are opened by name, and Starlette answers
their preflights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from lpw_sdxl.api.asgi import Application, Scope, header_values
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.own_names import OwnNames
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX

ANY_ORIGIN = "*"
_PORT = re.compile(r":[0-9]{1,5}$")
_SETTING = f"{ENVIRONMENT_PREFIX}CORS_ORIGINS"
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
# Of an application with a browser in it, such as capacitor://localhost; or of a file or a sandbox.
_OF_APPS = re.compile(r"null|(?!https?:|file:|ftp:)[a-z][a-z0-9+.-]*://[a-z0-9._-]*(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Origins:
    """The origins whose pages may send requests.

    Attributes:
        opened: origins as a browser writes them, or `*` alone.
        is_name_trusted: whether a page is also ours by a host's name, as on a server with tokens,
            which a page under a rebound name does not have.
        own_names: of this server.
    """

    opened: Collection[str] = ()
    is_name_trusted: bool = False
    own_names: OwnNames = field(default_factory=OwnNames)

    def refuse(self, scope: Scope, *, takes_links: bool = False) -> ErrorAnswer | None:
        """Refuse a request that a browser sends for a page of an origin that is not opened.

        Args:
            scope: the request's.
            takes_links: whether a page of another site may lead to it, by a link or as a picture.
                A browser names no origin then, but says that the page is of another site.
        """
        origins = header_values(scope, b"origin")
        if ANY_ORIGIN in self.opened:
            return None
        is_cross_site = b"cross-site" in header_values(scope, b"sec-fetch-site")
        if not origins:
            return ErrorAnswer.from_status(403) if is_cross_site and not takes_links else None
        origin = origins[0].decode("latin-1").lower()
        if len(origins) == 1 and (origin in self.opened or self._is_own(origin, scope)):
            return None
        return ErrorAnswer.from_status(403)

    def _is_own(self, origin: str, scope: Scope) -> bool:
        hosts = header_values(scope, b"host")
        if len(hosts) != 1 or not _ORIGIN.fullmatch(origin):
            return False
        host = hosts[0].decode("latin-1").lower()
        name = _PORT.sub("", host)
        return origin.partition("://")[2] == host and (
            self.is_name_trusted or name in self.own_names
        )


def read_origins(text: str) -> tuple[str, ...]:
    """Parse the origins in the setting, with commas or blanks between them.

    Raises:
        SettingsError: one is no origin; the message names it and shows a right one.
    """
    origins = tuple(word for word in re.split(r"[,\s]+", text) if word)
    for origin in origins:
        is_known = origin == ANY_ORIGIN or _ORIGIN.fullmatch(origin) or _OF_APPS.fullmatch(origin)
        if not is_known:
            shown = origin[:100] if "@" not in origin else "an origin with a user in it"
            raise SettingsError(
                f"{_SETTING}: {shown} is no origin; right are https://app.example.org and"
                " http://localhost:8080, in lower case, without a path"
            )
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise SettingsError(f"{_SETTING}: {ANY_ORIGIN} is every origin; the others have no effect")
    return origins


class OriginMiddleware(CORSMiddleware):
    """A middleware that answers preflights of opened origins and lets their pages read answers.

    Args:
        app: the wrapped application.
        opened: origins, as `Origins` has them.
        methods: HTTP methods that pages may use.
    """

    def __init__(self, app: Application, opened: Collection[str], methods: Sequence[str]) -> None:
        self._methods = " and ".join(methods)
        super().__init__(
            app,
            allow_origins=opened,
            allow_methods=methods,
            # Clients in pages send headers of their own, such as OpenAI's x-stainless-os; none but
            # the token's means anything here.
            allow_headers=("*",),
            expose_headers=("x-seed", "x-request-id", "retry-after", "x-should-retry"),
            # A page of the public network may reach a server at home if it was opened by name.
            allow_private_network=ANY_ORIGIN not in opened,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight; a refusal has our error's shape."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        is_allowed = self.is_allowed_origin(request_headers["origin"])
        answer = ErrorAnswer.from_status(403)
        if is_allowed:
            answer = ErrorAnswer(
                403,
                answer.code,
                f"pages may {self._methods}",
            )
        headers = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        refusal = NATIVE.response(answer)
        refusal.headers.update(headers)
        return refusal
