"""`fastslow serve`: the pages of `site.py` over HTTP, on 127.0.0.1 alone, for reading only.

A page of another site must not read runs through a browser on this machine: requests are answered
only under a name of this machine (a name of the attacker's that leads here is refused), nothing
allows other origins, and a strict Content-Security-Policy keeps what runs hold from acting.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten
from fastslow.results.live.site import POLICY, Missing, Site, message
from fastslow.results.reading import DAMAGE

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
"""What a request may call this machine."""
HEADERS = {
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests under another name, and puts `HEADERS` on every answer."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(answer: "Message") -> None:
            if answer["type"] == "http.response.start":
                MutableHeaders(scope=answer).update(HEADERS)
            await send(answer)

        if _NAMES.fullmatch(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send_guarded)
        else:
            refusal = PlainTextResponse("This server answers as 127.0.0.1 or localhost only.", 421)
            await refusal(scope, receive, send_guarded)


def build_app(root: Path) -> "Starlette":
    """The application over the runs in a folder."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    site, script = Site(root), (Path(__file__).parent / "live.js").read_text(encoding="utf-8")

    def page(make: "Callable[[Request], str]") -> "Callable[[Request], Response]":
        def answer(request: "Request") -> "Response":
            try:
                return HTMLResponse(make(request))
            except Missing as missing:
                words = f"There is no {shorten(str(missing), 100)!r} here."
                return HTMLResponse(message("Not there", words), 404)
            except DAMAGE as error:
                return HTMLResponse(message("Cannot be read", shorten(str(error), 600)), 422)

        return answer

    def key(request: "Request") -> str:
        return str(request.path_params["key"])

    routes: dict[str, Callable[[Any], str]] = {
        "/": lambda _: site.runs(),
        "/part/runs": lambda _: site.runs(is_part=True),
        "/run/{key:path}": lambda request: site.run(key(request)),
        "/part/now/{key:path}": lambda request: site.run(key(request), is_part=True),
        "/part/record/{key:path}": lambda request: site.record(key(request)),
        "/report/{key:path}": lambda request: site.report(key(request)),
        "/ablation/{key:path}": lambda request: site.ablation(key(request)),
        "/compare": lambda request: site.compare(request.query_params.getlist("run")),
    }
    pages = [Route(path, page(make), methods=["GET"]) for path, make in routes.items()]
    live_js = Response(script, media_type="text/javascript")
    files = [
        Route("/live.js", lambda _: live_js, methods=["GET"]),
        Route("/favicon.ico", lambda _: Response(status_code=204), methods=["GET"]),
    ]
    return Starlette(routes=[*pages, *files], middleware=[Middleware(Guard)])


@contextmanager
def bound(port: int) -> Iterator[socket.socket]:
    """A socket at that port of this machine.

    Raises:
        ConfigError: It is taken.
    """
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"serve: {HOST}:{port} cannot be used, got {error.strerror}. Something else is "
                "there, maybe another `fastslow serve`; give another port with --port."
            ) from error
        yield place


def run_server(root: Path, place: socket.socket) -> None:
    """Answer requests until a signal ends it."""
    import uvicorn

    settings = uvicorn.Config(build_app(root), log_level="warning", access_log=False)
    uvicorn.Server(settings).run(sockets=[place])
