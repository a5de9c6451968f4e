"""Who is asked next, and when: the attempts of a plan in their order, and again where nothing else of a model is left.

Called by `relay`, which tells how each attempt ended.
"""

from models_catalog.snapshot import Model
from proxy import errors
from proxy.errors import ProviderFault, Refusal
from proxy.routing import PATIENCE, Attempt, Plan

REPEATS = 2  # attempts of a request that are made once more; one, where another model can follow
BACK_OFF = 0.25  # seconds before the first of them, twice as many before the second
MOST = 16  # attempts of a request, whatever its models allow
_THROTTLED = 429


class Tries:
    """`wait`: seconds before the attempt that `next` gave."""

    __slots__ = (
        "_again",
        "_context",
        "_faults",
        "_first_wait",
        "_is_too_long",
        "_made",
        "_model",
        "_provider",
        "_refusal",
        "_repeated",
        "_repeats",
        "_waiting",
        "wait",
    )

    def __init__(self, plan: Plan) -> None:
        self._model, self._provider = plan.attempts[0].model, plan.attempts[0].route.provider.id
        self._waiting = plan.attempts[::-1]  # the next one is the last
        self._again: list[tuple[Attempt, float]] = []
        self._repeats = 0 if plan.is_last_resort else REPEATS - (plan.attempts[-1].model is not self._model)
        self._repeated = 0
        self._made: dict[str, int] = {}  # by model
        self._context = 0  # tokens: a smaller window has turned out to be too small
        self._is_too_long = False  # the prompt, for the model that was asked for
        self._faults: list[ProviderFault] = []
        self._refusal: Refusal | None = None
        self.wait, self._first_wait = 0.0, plan.wait

    def next(self) -> Attempt | None:
        """The next attempt; None: no provider is left."""
        while (self._waiting or self._again) and sum(self._made.values()) < MOST:
            attempt = self._take()
            model = attempt.model
            made = self._made.get(model.id, 0)
            if made < model.attempts and not self._is_too_small(model):
                self._made[model.id] = made + 1
                return attempt
        return None

    def _take(self) -> Attempt:
        """A model's own routes, then these once more, and only then another model."""
        waiting, again, self.wait = self._waiting, self._again, 0.0
        if waiting and not (again and again[0][0].model is not waiting[-1].model):
            attempt = waiting.pop()
            if attempt.route.provider.id != self._provider or attempt.model is not self._model:
                return attempt.as_fallback()
            if not self._made:
                self.wait = self._first_wait
            return attempt
        attempt, self.wait = again.pop(0)
        return attempt

    def _is_too_small(self, model: Model) -> bool:
        return bool(self._context and model.context and model.context <= self._context)

    @property
    def has_more(self) -> bool:
        """Whether another route can follow: nobody is then waited for to the last."""
        return bool(self._waiting)

    def has_other(self, attempt: Attempt) -> bool:
        """Whether another provider can."""
        return any(each.route.provider.id != attempt.route.provider.id for each in self._waiting)

    def failed(self, attempt: Attempt, fault: ProviderFault) -> None:
        self._faults.append(fault)
        self._leave(attempt, fault)
        said = fault.retry_after
        if self._repeated < self._repeats and fault.may_be_repeated and (said or 0.0) <= PATIENCE:
            self._again.append((attempt, BACK_OFF * 2**self._repeated if said is None else said))
            self._repeated += 1

    def _leave(self, attempt: Attempt, fault: ProviderFault) -> None:
        """Other providers come before this one's other credentials; where it has no place, those have none either."""
        provider, model = attempt.route.provider.id, attempt.model
        if fault.reason == "busy":
            self._waiting = [each for each in self._waiting if each.route.provider.id != provider]
        elif not fault.is_credential and fault.status != _THROTTLED:
            mine = [each for each in self._waiting if each.model is model]
            same = [each for each in mine if each.route.provider.id == provider]
            if 0 < len(same) < len(mine):
                others = [each for each in mine if each.route.provider.id != provider]
                rest = [each for each in self._waiting if each.model is not model]
                self._waiting = rest + same + others  # the next one is the last

    def refused(self, refusal: Refusal) -> None:
        """Not by a provider's failure: another model, or a route of the client's own format, may do."""
        self._refusal = self._refusal or refusal

    def too_small(self, model: Model, refusal: Refusal) -> None:
        """The prompt does not fit into this model's context window."""
        self._context = max(self._context, model.context or 0)
        self._refusal, self._is_too_long = refusal, True
        if not model.context:  # nobody knows which window would be larger
            self._waiting = [attempt for attempt in self._waiting if attempt.model is not model]
        self._again.clear()

    def outcome(self) -> Refusal:
        """The client's answer once no provider is left."""
        if self._refusal is not None and (not self._faults or self._is_too_long):
            return self._refusal
        if not self._faults:
            return errors.Unavailable(f"No provider can answer for the model {self._model.id!r} at the moment.")
        return errors.after_all(self._faults, self._model.id)

    def forget(self) -> None:
        """Each fault holds by its traceback whoever raised it: a circle, in which the request's body would lie."""
        self._faults.clear()
        self._refusal = None
