"""What one request may use, from the moment it is let in to its settlement: limits and credit in one decision.

`admit` reserves them together in the `Store`, or refuses and leaves no trace. What a request can cost is held before:
its prompt, counted from above, and its output up to its bound. A stream begins with less and holds ahead of what it
says; what credit cannot carry is not asked of the provider (`bound`), or ends the stream (`keep_ahead`). Called by
`exchange` and `counting`.

Costs are picodollars, holds nanodollars rounded up.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from django.db import DatabaseError

from accounts.credits import Fund, funds_of, read
from accounts.keys import Key, Limit, Rates, least
from accounts.usd import PICO, nanodollars, usd
from models_catalog import pricing
from models_catalog.pricing import Price
from models_catalog.snapshot import Model
from proxy import errors, meter
from proxy.counters.base import Grant, Left, LimitReached, NotAffordable, Store, UnknownFunds, Unreachable, Wish
from proxy.counters.database import in_database
from proxy.errors import Refusal
from proxy.formats import registry
from proxy.formats.base import Stream
from proxy.formats.canonical import Usage
from proxy.ingress import Envelope
from proxy.replies import duration

FIRST_STEP = 256  # tokens that a stream holds at first
MARGIN = 32  # tokens: more than providers put into one event, nearly always
EARLY = 0.2  # seconds that a stream waits for a larger hold while it still has some of the one before
COUNT_EVERY = 64  # characters of a stream, and the more, the longer it is
UNKNOWN_OUTPUT = 32_768  # tokens: the bound where neither the request nor the catalog has one
_UNBOUNDED_ESTIMATE = 4096  # tokens that a limit reserves for an answer that nothing bounds
_IMAGE = 3000  # tokens, from above, of an image that is only named by its address
_NAMED_ELSEWHERE = (b'url"', b'"file')  # "image_url" and its "url", "file_id", "fileUri"
_NEVER = 1 << 62
_MOST = 1 << 46  # tokens: more than anybody means
_DOUBTFUL = 4  # times what it can be: a provider's count of more is a mistake
_LITTLE, _MUCH = 1024, 1_000_000  # tokens: a bound that some pass; the context of a model that names none
_CAPPED = "max_cost_exceeded"
_MUCH_OF_IT = 8  # the part of a limit of tokens that a prompt may reserve by its bytes
_NO_GRANT = Grant()
_ASK_AGAIN = 2.0  # seconds, where other requests' holds stand in the way


@dataclass(slots=True)
class Quote:
    """What a request can cost on one model; nothing, where nobody asks.

    `bound`: tokens of output, in all its choices; `told`: to the provider. `cap`: nanodollars, by `max_cost_usd`.
    """

    model: Model
    price: Price | None = None
    prompt: int = 0  # picodollars
    each: int = 0  # picodollars per token of output
    least: int = 1  # tokens
    bound: int = _NEVER
    first: int = 0  # tokens of output to hold at the beginning
    told: bool = False
    cap: int = _NEVER

    @property
    def is_free(self) -> bool:
        return not self.prompt and not self.each

    def amount(self, tokens: int) -> int:
        """Nanodollars for the prompt and so many tokens of output."""
        return nanodollars(self.prompt + tokens * self.each)

    def tokens(self, held: int) -> int:
        """Tokens of output that a hold covers."""
        return max(0, (held * PICO - self.prompt) // self.each) if self.each else _NEVER


class Reservation:
    """Of one request. `held`: nanodollars; `most`: the largest hold it had.

    `said`: tokens of the stream, as counted so far; `next_check`: at how many of its characters `keep_ahead` is due.
    """

    __slots__ = (
        "_envelope",
        "_open",
        "_quote",
        "_read",
        "_store",
        "_wish",
        "grant",
        "held",
        "most",
        "next_check",
        "said",
    )

    def __init__(self, store: Store, wish: Wish, quote: Quote, envelope: Envelope) -> None:
        self._store = store
        self._wish = wish
        self._quote = quote
        self._envelope = envelope
        self._open = bool(wish.limits or wish.funds)
        self._read = 0  # characters
        self.grant = _NO_GRANT
        self.held = self.most = 0
        self.next_check = self.said = 0

    @property
    def funds(self) -> tuple[Fund, ...]:
        return self._wish.funds

    @property
    def bound(self) -> int | None:
        """The most tokens of output that the provider is to be told, per choice; None: what the client says."""
        quote = self._quote
        return max(quote.bound // self._envelope.choices, 1) if quote.told else None

    @property
    def model(self) -> Model:
        return self._quote.model

    @property
    def least(self) -> int:
        """Nanodollars for the prompt and the shortest answer."""
        return self._quote.amount(self._quote.least)

    @property
    def end(self) -> str:
        """Why `keep_ahead` has ended the stream."""
        capped = self._quote.amount(self.said + MARGIN) > self._quote.cap
        return _CAPPED if capped else errors.Insufficient.code or ""

    # --- admission ---------------------------------------------------------------------------------------------------

    async def take(self) -> bool:
        """Whether there is credit for all that it may use. Raises `LimitReached`, `NotAffordable`, `Unreachable`."""
        if not self._open:
            return True
        try:
            self.grant = await self._store.admit(self._wish)
        except UnknownFunds:
            self.grant = await _informed(self._store, self._store.admit, self._wish)
        return self._granted(self.grant)

    async def is_taken(self) -> bool:
        """With a prompt from above. False: it is to be counted, for credit or a limit of tokens is too scarce."""
        self._wish.least = self._wish.amount
        try:
            return await self.take()
        except NotAffordable:
            return False
        except LimitReached as reached:
            if reached.limit.kind != "tpm":
                raise
            return False

    async def retake(self, quote: Quote, wish: Wish) -> None:
        """After `is_taken`, counted. Raises as `take`."""
        if self.held:
            await self.reprice(quote, (), (), 0)
        else:
            self._quote, self._wish = quote, wish
            await self.take()

    async def reprice(self, quote: Quote, funds: tuple[Fund, ...], limits: tuple[Limit, ...], tokens: int) -> None:
        """At another price, with another model's limits. Raises as `take`; the hold is then what it was."""
        funds = funds or self._wish.funds
        if not funds and not limits:
            self._quote = quote
            return
        self._open = True
        wish = _wished(self._wish.id, limits, tokens, funds, quote)
        try:
            grant = await _informed(self._store, self._store.adjust, wish)
        except (Unreachable, asyncio.CancelledError):  # it may have been done: of the two holds the smaller one is sure
            self.held = min(self.held, wish.amount)
            raise
        self._quote, self._wish = quote, wish
        if not (self.grant.requests or self.grant.tokens):
            self.grant = grant
        self._granted(grant)

    def _granted(self, grant: Grant) -> bool:
        """Whether there is credit for all that it may use."""
        if not self._wish.funds:
            return True
        quote = self._quote
        self._hold(grant.held)
        affordable = quote.tokens(grant.held + grant.spare)
        if affordable >= quote.bound:
            return True
        quote.bound, quote.told = max(affordable, quote.least), True
        return False

    def _hold(self, held: int) -> None:
        self.held = held
        if held > self.most:
            self.most = held

    # --- while a stream passes ---------------------------------------------------------------------------------------

    async def keep_ahead(self, stream: Stream) -> bool:
        """Hold more, as the stream says more. False: it must end here."""
        quote = self._quote
        self._count(stream)
        step = COUNT_EVERY + stream.said // COUNT_EVERY
        if not quote.each:
            self.next_check = stream.said + step
            return True
        covered = self._covered()
        if covered < quote.bound and self.said > covered // 2:
            more = quote.amount(min(quote.bound, max(2 * covered, self.said + 4 * MARGIN)))
            await self._hold_more(more, EARLY if self.said + 2 * MARGIN < covered else None)
        elif self.said > covered:  # the provider counts otherwise, or not at all
            await self._hold_more(quote.amount(self.said + 4 * MARGIN))
        covered = self._covered()
        margin = MARGIN if covered < quote.bound else 0  # at its bound the provider itself comes to an end
        # No token is shorter than a character.
        self.next_check = stream.said + max(1, min(step, covered - self.said - margin))
        return self.said + margin <= covered

    def _covered(self) -> int:
        """Tokens of output that are paid for."""
        return self._quote.tokens(self.held if self._wish.funds else self._quote.cap)

    def _count(self, stream: Stream) -> None:
        text = stream.text()
        if len(text) > self._read:
            self.said += meter.estimate(text[self._read :])
            self._read = len(text)

    async def _hold_more(self, amount: int, seconds: float | None = None) -> None:
        """As much of it as there is credit for; and as can be had in so many seconds."""
        amount = min(amount, self._quote.cap)
        if not self._wish.funds or amount <= self.held:
            return
        wish = replace(self._wish, limits=(), amount=amount, least=self.held + 1)
        with suppress(NotAffordable, Unreachable, TimeoutError):  # it goes on as far as what it has
            async with asyncio.timeout(seconds):
                self._hold((await _informed(self._store, self._store.adjust, wish)).held)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def afford(self, cost: int) -> None:
        """Before a charge of `cost` picodollars: hold more, where the provider has counted more than was held."""
        await self._hold_more(nanodollars(cost))

    def believed(self, usage: Usage) -> Usage:
        """As far as a provider can have counted so: one wrong number must not take all the credit there is."""
        quote = self._quote
        little = UNKNOWN_OUTPUT if "reasoning" in quote.model.supports else _LITTLE
        output = _DOUBTFUL * max(quote.bound, little)
        prompt = _DOUBTFUL * max(quote.model.context or _MUCH, len(self._envelope.whole.text))
        if usage.completion <= output and usage.prompt <= prompt:
            return usage
        return replace(usage, completion=min(usage.completion, output), prompt=min(usage.prompt, prompt))

    def charge(self, cost: int) -> int:
        """What of a cost is charged: never more than is held, nor than its `max_cost_usd`. The rest is nobody's."""
        return min(cost, (self.held if self._wish.funds else self._quote.cap) * PICO)

    def settle(self, charge: int = 0, tokens: int = 0) -> None:
        """May be called again without effect."""
        if self._open:
            self._open = False
            self._store.settle(self._wish.id, nanodollars(charge) if charge and self._wish.funds else None, tokens)


class Admission:
    """What the requests of one process ask at its store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._few: set[int] = set()  # keys of whose limits of tokens less than half is left

    async def admit(self, request_id: str, key: Key, envelope: Envelope, model: Model, now: float) -> Reservation:
        """Raises `RateLimited` (429), `Insufficient` (402), `BadRequest` (400: `max_cost_usd`), `Unavailable` (503)."""
        limits, funds = key.limits + limits_of(model), funds_of(key, now)
        if not limits and not funds and envelope.max_cost is None:
            return Reservation(self.store, Wish(request_id), Quote(model), envelope)
        tpm = least(key.least_tpm, model.tpm) if model.tpm else key.least_tpm
        prompt = _from_above(envelope)
        # From above, `max_cost_usd` would allow less than it says, and limits that are nearly reached even less.
        counts = envelope.max_cost is not None or (tpm and (prompt > tpm // _MUCH_OF_IT or key.id in self._few))
        if counts:
            prompt = await prompt_of(envelope)
        quote, funds = quoted(envelope, model, now, with_margin(prompt) if counts else prompt, funds)
        wish = _wished(request_id, limits, _expected(prompt, envelope, model, tpm), funds, quote)
        reservation = Reservation(self.store, wish, quote, envelope)
        try:
            if counts:
                await reservation.take()
            elif not await reservation.is_taken():
                prompt = await prompt_of(envelope)
                quote, funds = quoted(envelope, model, now, with_margin(prompt), funds)
                tokens = _expected(prompt, envelope, model, tpm)
                await reservation.retake(quote, _wished(request_id, limits, tokens, funds, quote))
        except BaseException as reason:
            reservation.settle()
            if isinstance(reason, LimitReached | NotAffordable | Unreachable):
                raise refusal(reason, key, model, reservation.least) from None
            raise
        if left := reservation.grant.tokens:
            self._note(key, left)
        return reservation

    def _note(self, key: Key, left: Left) -> None:
        """Whether the next prompts are to be counted: their bytes may reserve about half of a limit, not more."""
        if 2 * left.remaining > left.limit:
            self._few.discard(key.id)
        else:
            self._few.add(key.id)

    async def reprice(self, reservation: Reservation, key: Key, envelope: Envelope, model: Model, now: float) -> None:
        """Before another model is asked. Raises as `admit`."""
        limits, funds = limits_of(model), funds_of(key, now)
        if not limits and not funds and envelope.max_cost is None:
            await reservation.reprice(Quote(model), (), (), 0)
            return
        tokens = await prompt_of(envelope)
        quote, funds = quoted(envelope, model, now, with_margin(tokens), funds)
        try:
            await reservation.reprice(quote, funds, limits, _expected(tokens, envelope, model, model.tpm))
        except (LimitReached, NotAffordable, Unreachable) as reason:
            raise refusal(reason, key, model, quote.amount(quote.least)) from None

    async def count(self, request_id: str, key: Key, model: Model) -> Grant:
        """A request that generates nothing. Raises as `admit`."""
        limits = key.limits + limits_of(model)
        if not limits:
            return Grant()
        try:
            return await self.store.admit(Wish(request_id, limits))
        except (LimitReached, Unreachable) as reason:
            raise refusal(reason, key, model) from None

    async def left(self, key: Key) -> Grant:
        """For an answer that counted nothing."""
        if not key.limits:
            return Grant()
        try:
            return await self.store.left(key.limits)
        except Unreachable:
            return Grant()


async def _informed(store: Store, ask: Callable[[Wish], Awaitable[Grant]], wish: Wish) -> Grant:
    """Ask; where the store does not know a fund yet, tell it what the ledger says, and ask again."""
    for _ in range(3):  # it may have forgotten again: a move between stores
        try:
            return await ask(wish)
        except UnknownFunds as unknown:
            await asyncio.to_thread(_inform, store, unknown.names)
    raise Unreachable


def _inform(store: Store, names: Sequence[str]) -> None:
    try:
        store.learn(in_database(read, names))
    except DatabaseError as error:
        raise Unreachable from error


def limits_of(model: Model) -> tuple[Limit, ...]:
    if not (model.rps or model.rpm or model.tpm or model.concurrency):
        return ()
    return Rates(model.rps, model.rpm, model.tpm, model.concurrency).of(f"model:{model.id}")


# --- what it can cost ------------------------------------------------------------------------------------------------


def quoted(
    envelope: Envelope, model: Model, now: float, prompt: int, funds: tuple[Fund, ...]
) -> tuple[Quote, tuple[Fund, ...]]:
    """And of what it is paid; what costs nothing needs no credit. `prompt`: tokens.

    Raises `Insufficient` (402) where nobody knows what it costs, `BadRequest` (400) as `_cap`.
    """
    if not funds and envelope.max_cost is None:
        return Quote(model), ()
    quote = quote_of(envelope, model, now, prompt)
    if funds and quote.price is None:
        words = f"The model {model.id!r} has no price, and this account or key pays for what it uses."
        raise errors.Insufficient(f"{words} Tell the operator.", param="model", retry=False)
    return quote, () if quote.is_free else funds


def _wished(request_id: str, limits: tuple[Limit, ...], tokens: int, funds: tuple[Fund, ...], quote: Quote) -> Wish:
    return Wish(request_id, limits, tokens, funds, quote.amount(quote.first), quote.amount(quote.least))


def quote_of(envelope: Envelope, model: Model, now: float, prompt: int) -> Quote:
    """`prompt`: tokens. Raises `BadRequest` (400) where `max_cost_usd` does not allow one token."""
    least, choices = _least(envelope, model), envelope.choices
    own = envelope.bound
    if model.enforce and model.output:
        own = min(own or model.output, model.output)
    # What neither says is held for, and not told: nobody knows whether the provider takes as much.
    bound = own or model.output or min(UNKNOWN_OUTPUT, model.context or UNKNOWN_OUTPUT)
    quote = Quote(model, least=least * choices, bound=max(int(min(bound, _MOST)), least) * choices)
    price = pricing.in_force(model.prices, now)
    if price is not None and price.input is not None and price.output is not None:
        quote.price = price
        quote.prompt = prompt * max(price.input, price.cache_write or 0, price.cached_input or 0)
        quote.each = price.output
    if envelope.max_cost is not None:
        _cap(quote, envelope.max_cost)
    if envelope.stream and "reasoning" not in model.supports:  # thoughts that are not shown cannot be metered
        quote.first = min(quote.bound, max(FIRST_STEP, quote.least))
    else:
        quote.first = quote.bound
    return quote


def _least(envelope: Envelope, model: Model) -> int:
    """The smallest bound that the request's own fields allow, and the formats of the model's providers."""
    ours = envelope.format
    least = ours.least_output(envelope.members)
    for route in model.routes:
        theirs = registry.between(ours, route.provider.dialect, route.provider.supports)
        if theirs is not None and theirs is not ours:
            least = max(least, theirs.LEAST_OUTPUT)
    return least


def _cap(quote: Quote, most: int) -> None:
    """By the request's own `max_cost_usd`, in picodollars."""
    if quote.price is None:
        raise errors.BadRequest(
            f"'max_cost_usd' cannot be kept: the model {quote.model.id!r} has no price.",
            param="max_cost_usd",
            code="invalid_value",
            retry=False,
        )
    affordable = (most - quote.prompt) // quote.each if quote.each else quote.bound
    if most < quote.prompt or affordable < quote.least:
        raise errors.BadRequest(
            "'max_cost_usd' is less than this prompt and the shortest answer can cost "
            f"({dollars(quote.amount(quote.least))} USD).",
            param="max_cost_usd",
            code=_CAPPED,
            retry=False,
        )
    quote.cap = most // PICO
    if affordable < quote.bound:
        quote.bound, quote.told = affordable, True


def _from_above(envelope: Envelope) -> int:
    """Tokens that the prompt cannot have more of: no token is shorter than a byte."""
    text = envelope.whole.text
    named = 0
    for name in _NAMED_ELSEWHERE:
        named += text.count(name)
    return len(text) + named * _IMAGE


async def prompt_of(envelope: Envelope) -> int:
    """Of the prompt, as counted."""
    whole = envelope.whole
    if len(whole.text) < meter.SAMPLE:
        return meter.prompt_tokens(envelope.format, whole)
    return await asyncio.to_thread(meter.prompt_tokens, envelope.format, whole)


def with_margin(tokens: int) -> int:
    """With what vendors' other vocabularies may make of a prompt."""
    return tokens + tokens // 4


def _expected(prompt: int, envelope: Envelope, model: Model, tpm: int) -> int:
    """Tokens that limits of tokens reserve: the prompt, and the output's bound."""
    if not tpm:
        return 0
    if envelope.bound:
        return prompt + int(min(envelope.bound, _MOST)) * envelope.choices
    free = min(model.output or _UNBOUNDED_ESTIMATE, _UNBOUNDED_ESTIMATE) * envelope.choices
    return min(prompt + free, max(tpm, prompt))


# --- refusals --------------------------------------------------------------------------------------------------------

_KINDS = {
    "rps": ("request", " per second"),
    "rpm": ("request", " per minute"),
    "tpm": ("token", " per minute"),
    "concurrency": ("concurrent request", ""),
}


def refusal(reason: LimitReached | NotAffordable | Unreachable, key: Key, model: Model, least: int = 0) -> Refusal:
    """In words: whose limit it is, its value, and when to come back. `least`: nanodollars that would have done."""
    if isinstance(reason, LimitReached):
        return _limited(reason, model)
    if isinstance(reason, NotAffordable):
        return _insufficient(reason, key, least)
    return errors.Unavailable(
        "Credit and limits cannot be looked up at the moment.", code="credits_unavailable", retry_after=2
    )


def _limited(reason: LimitReached, model: Model) -> Refusal:
    limit = reason.limit
    whose = limit.subject.partition(":")[0]
    of = f"The limit of the model {model.id!r}, for all keys together," if whose == "model" else f"Your {whose}'s limit"
    what, per = _KINDS[limit.kind]
    value = f"{limit.value} {what}{'' if limit.value == 1 else 's'}{per}"
    if limit.kind == "concurrency":
        words = f"{of} of {value} is reached. Try again when one has ended."
        return errors.RateLimited(words, code="concurrency_exceeded", retry_after=max(reason.wait, 1.0))
    if math.isinf(reason.wait):
        words = f"{of} is {value}, and this request alone may use more. Ask for fewer with `max_tokens`."
        return errors.RateLimited(words, retry=False)
    words = f"{of} of {value} is reached. Try again in {duration(reason.wait)}."
    return errors.RateLimited(words, retry_after=reason.wait)


def _insufficient(reason: NotAffordable, key: Key, least: int) -> Refusal:
    if reason.fund.name.startswith("k"):
        period = "" if key.period == "total" else f" a {key.period}"
        whose = f"The budget of this API key, {dollars(reason.fund.room)} USD{period},"
    else:
        whose = "The credit of this account"
    left = f"{dollars(max(reason.available, 0))} USD are left, it needs at least {dollars(least)}"
    if reason.held > 0 and reason.available + reason.held >= least:
        words = f"{whose} is held by requests that still run: {left}. Try again when they have ended."
        return errors.Insufficient(words, retry_after=_ASK_AGAIN)
    return errors.Insufficient(f"{whose} does not suffice for this request: {left}.", retry=False)


def dollars(held: int) -> str:
    """Of nanodollars."""
    return f"{usd(held * PICO):f}"
