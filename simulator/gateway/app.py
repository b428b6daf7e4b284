"""The gateway's routes: HTTP in, one request to the ledger, HTTP out.

Handlers decide nothing about money: they read a request, put it to the ledger under the id of its idempotency key, and write
down what the ledger said. Refunds, posts and voids name their original only; its parties are looked up in the ledger, so
every gateway can take every request. A reason of the gateway's own (a limit, a malformed body) books and remembers nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from simulator.gateway import metrics, problems, requests
from simulator.gateway.keys import id_of, is_key, written
from simulator.gateway.ledger_client import BusyError, InDoubtError
from simulator.gateway.problems import PROBLEMS, ProblemError
from simulator.shard.throttle import TokenBucket
from simulator.transaction import Kind, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from simulator.gateway.ledger_client import Decision, Entry, LedgerClient
    from simulator.gateway.requests import Asked, Form

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_BYTES_MAX = 16_384
_JSON = "application/json"
_REMEMBERED = 65_536  # keys whose bodies this gateway compares itself; see `_Seen`
_NOT_DECIDED = (Reason.OVERFLOW, Reason.LIMIT)  # the key is as unused as before
_OK = int(Status.OK)


class Settings(NamedTuple):
    """What is told a gateway."""

    name: str  # of the X-Node header
    currency: str
    rate_per_s: int | None = None  # None: as many as come


class Strain(NamedTuple):
    """How a fault slows a gateway down; set from outside, read at every request."""

    factor: float  # an answer takes so many times as long as it would
    delay_s: float  # and this much longer


class _Seen:
    """The keys last used here, and what for.

    The ledger knows a key within the shard of its payer. That the same key comes again for a payer in another shard is seen
    here only: by this gateway, for the last `_REMEMBERED` keys.
    """

    def __init__(self) -> None:
        self._bodies: OrderedDict[int, object] = OrderedDict()

    def check(self, key: int, body: object) -> None:
        """Notes what a key is used for. Raises ProblemError if that was something else before."""
        before = self._bodies.get(key)
        if before is None:
            self._bodies[key] = body
            if len(self._bodies) > _REMEMBERED:
                self._bodies.popitem(last=False)
        elif before != body:
            raise ProblemError("duplicate", "the same key came with another request")

    def forget(self, key: int) -> None:
        """Nothing was decided under a key."""
        self._bodies.pop(key, None)


class Gateway:
    """The handlers, and what they share."""

    def __init__(self, ledger: LedgerClient, settings: Settings, strain: Callable[[], Strain | None]) -> None:
        self.ledger = ledger
        self.settings = settings
        self.metrics = metrics.Metrics(settings.name)
        self.stopping = False
        self._strain = strain
        self._seen = _Seen()
        rate = settings.rate_per_s
        self._bucket = None if rate is None else TokenBucket(rate, time.monotonic_ns())
        self._openapi = files("simulator.gateway").joinpath("openapi.yaml").read_text("utf-8")

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._around], client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.post("/v1/payments", self.pay),
                web.post("/v1/holds", self.hold),
                web.post("/v1/holds/{id}/post", self.post),
                web.post("/v1/holds/{id}/void", self.void),
                web.post("/v1/refunds", self.refund),
                web.get("/v1/accounts/{id}", self.account),
                web.get("/v1/transactions/{id}", self.transaction),
                web.get("/healthz", self.health),
                web.get("/metrics", self.show_metrics),
                web.get("/openapi.yaml", self.openapi),
            ]
        )
        return app

    # ---- around every request ----

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts, names the node, and turns whatever is raised into a problem."""
        began = time.perf_counter()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        try:
            response = await handler(request)
        except ProblemError as problem:
            response = _problem(problem.name, problem.detail, **problem.more)
        except BusyError:
            response = _problem("busy")
        except InDoubtError:
            response = _problem("in-doubt")
        except web.HTTPException as raised:
            response = _of_aiohttp(raised)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  a client gets a problem, whatever went wrong here, and never a traceback
            sys.stderr.write(f"sim: {self.settings.name}: {request.method} {route}: {type(error).__name__}: {error}\n")
            response = _problem("internal")
        strain = self._strain()
        if strain is not None:
            took = time.perf_counter() - began
            await asyncio.sleep(took * (strain.factor - 1.0) + strain.delay_s)
        headers = response.headers
        headers["X-Node"] = self.settings.name
        if self.stopping:
            response.force_close()
        self.metrics.note(route, response.status, time.perf_counter() - began)
        return response

    def _admit(self) -> None:
        if self.stopping:
            raise ProblemError("stopping")
        if self._bucket is not None:
            if self._bucket.available(time.monotonic_ns()) < 1:
                raise ProblemError("rate-limit")
            self._bucket.spend(1)

    async def _read(self, request: web.Request, form: Form) -> tuple[int, Asked]:
        """(the ledger's id of the key, the body)."""
        self._admit()
        key = request.headers.get("Idempotency-Key", "")
        if not is_key(key):
            raise ProblemError("idempotency-key", "1 to 255 visible ASCII characters, and not of the form tx_…")
        body = await request.read() if request.body_exists else b""
        if body and request.content_type != _JSON:
            raise ProblemError("media-type")
        return id_of(key), requests.read(body, form, self.settings.currency)

    async def _book(
        self, kind: Kind, key: int, payer: int, payee: int, amount_minor: int, related: int = 0
    ) -> web.Response:
        """Puts one request to the ledger and writes down what it said."""
        self._seen.check(key, (kind, payer, payee, amount_minor, related))
        try:
            decision = await self.ledger.submit(kind, key, payer, payee, amount_minor, related)
        except BusyError:
            self._seen.forget(key)
            raise
        if decision.status == _OK:
            text = f'{{"id":"{written(key)}","status":"ok","shard":{decision.shard},"lsn":{decision.lsn}}}'
            return web.Response(status=201, body=text.encode(), content_type=_JSON)
        if decision.reason in _NOT_DECIDED:
            self._seen.forget(key)
        return _refused(key, decision)

    # ---- routes that book ----

    async def pay(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/payments."""
        key, asked = await self._read(request, requests.TRANSFER)
        return await self._book(Kind.PAYMENT, key, asked.payer, asked.payee, asked.amount_minor)

    async def hold(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/holds."""
        key, asked = await self._read(request, requests.TRANSFER)
        return await self._book(Kind.AUTHORIZE, key, asked.payer, asked.payee, asked.amount_minor)

    async def refund(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/refunds: the payee of a payment gives it back, wholly or in part."""
        key, asked = await self._read(request, requests.REFUND)
        payment = await self._original(requests.reference(asked.payment))
        return await self._book(Kind.REFUND, key, payment.payee, payment.payer, asked.amount_minor, payment.id)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/holds/{id}/post."""
        return await self._complete(Kind.POST, request)

    async def void(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/holds/{id}/void."""
        return await self._complete(Kind.VOID, request)

    async def _complete(self, kind: Kind, request: web.Request) -> web.Response:
        key, asked = await self._read(request, requests.REST)
        hold = await self._original(requests.reference(request.match_info["id"]))
        amount = asked.amount_minor
        if not amount:
            # All that is left; but a repetition asks for what it asked for the first time, of which then nothing is left.
            before = await self.ledger.transaction(key)
            amount = before.amount_minor if before is not None else hold.remaining_minor
            if not amount:
                raise ProblemError("state", "nothing is left of this hold")
        return await self._book(kind, key, hold.payer, hold.payee, amount, hold.id)

    async def _original(self, key: int) -> Entry:
        found = await self.ledger.transaction(key)
        if found is None or found.status != _OK:
            raise ProblemError("not_found")
        return found

    # ---- routes that read ----

    async def account(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/accounts/{id}."""
        self._admit()
        text = request.match_info["id"]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1  # noqa: PLR2004  digits of 2³²
        found = await self.ledger.account(number) if 0 <= number <= requests.ACCOUNT_MAX else None
        if found is None:
            raise ProblemError("not_found")
        return web.json_response({"id": number, "currency": self.settings.currency, **found._asdict()})

    async def transaction(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/transactions/{id}."""
        self._admit()
        found = await self.ledger.transaction(requests.reference(request.match_info["id"]))
        if found is None:
            raise ProblemError("not_found")
        told: dict[str, object] = {
            "id": written(found.id),
            "kind": Kind(found.kind).name.lower(),
            "status": Status(found.status).name.lower(),
            "payer": found.payer,
            "payee": found.payee,
            "amount_minor": found.amount_minor,
            "currency": self.settings.currency,
            "shard": found.shard,
            "lsn": found.lsn,
        }
        if found.kind == Kind.AUTHORIZE:
            told["remaining_minor"] = found.remaining_minor
        if found.related:
            told["related"] = written(found.related)
        if found.reason:
            told["reason"] = Reason(found.reason).name.lower()
        return web.json_response(told)

    async def health(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  a handler's signature
        """GET /healthz: 200 while it takes requests."""
        if self.stopping:
            raise ProblemError("stopping")
        return web.json_response({"status": "ok", "node": self.settings.name})

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  as above
        """GET /metrics."""
        ledger = self.ledger
        text = self.metrics.text(
            {
                "gateway_in_flight": ("gauge", "Requests that wait for the ledger.", ledger.in_flight),
                "gateway_stray_answers_total": ("counter", "Answers that nobody waited for any more.", ledger.stray),
            }
        )
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def openapi(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002  as above
        """GET /openapi.yaml."""
        return web.Response(text=self._openapi, content_type="application/yaml")


def _problem(name: str, detail: str = "", **more: object) -> web.Response:
    problem = PROBLEMS[name]
    response = web.Response(
        status=problem.status, body=problems.body_of(name, detail, **more), content_type=problems.CONTENT_TYPE
    )
    if problem.retry_after_s:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def _refused(key: int, decision: Decision) -> web.Response:
    return _problem(
        problems.of_decision(decision), id=written(key), outcome=problems.ledger_status(decision),
        shard=decision.shard, lsn=decision.lsn,
    )  # fmt: skip


def _of_aiohttp(raised: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses."""
    names = {404: "no-such-path", 405: "method", 413: "too-large"}
    response = _problem(names.get(raised.status, "malformed"))
    if "Allow" in raised.headers:
        response.headers["Allow"] = raised.headers["Allow"]
    return response
