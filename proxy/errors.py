"""Every way in which a request is refused or fails: status, type and code as the README lists them.

One tree. A `Refusal` is the gateway's word to the client. A `ProviderFault` is what went wrong at one provider: another
may help, and only when none is left does it become the client's answer.
"""


class Refusal(Exception):
    """The answer to a request that ends here. `retry_after` in seconds; `retry` False: another try cannot help."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None
    hangs_up = False  # the rest of the request is not read: the connection cannot serve another

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.retry = retry
        if code is not None:
            self.code = code


class BadRequest(Refusal):
    pass


class Lossy(BadRequest):
    """A strict request that this route's format cannot say whole: one of the client's own format may."""

    code = "unsupported_parameter"

    def __init__(self, names: list[str], model: str) -> None:
        words = f"The provider of {model!r} speaks another format, which cannot say: {', '.join(names[:20])}."
        super().__init__(f"{words} The request or its key is strict.", param=names[0], retry=False)


class InvalidJson(BadRequest):
    code = "invalid_json"


class BadKey(Refusal):
    status, type, code = 401, "authentication_error", "invalid_api_key"


class Insufficient(Refusal):
    status, type, code = 402, "insufficient_credits", "insufficient_credits"


class Forbidden(Refusal):
    status, type = 403, "permission_error"


class NotFound(Refusal):
    status, type, code = 404, "invalid_request_error", "not_found_error"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(Refusal):
    status, code = 405, "method_not_allowed"


class BodyTimeout(Refusal):
    status, code = 408, "request_timeout"
    hangs_up = True


class TooLarge(Refusal):
    status, code = 413, "request_too_large"
    hangs_up = True


class HeadTooLarge(Refusal):
    status, code, hangs_up = 431, "headers_too_large", True


class RateLimited(Refusal):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class Unavailable(Refusal):
    status, type, code = 503, "api_error", "provider_unavailable"


class AllFailed(Refusal):
    status, type, code = 502, "api_error", "provider_error"


class AllTimedOut(Refusal):
    status, type, code = 504, "api_error", "provider_timeout"


class Internal(Refusal):
    """A bug of ours: the log has the traceback."""

    status, type, code = 500, "server_error", "internal_error"

    def __init__(self) -> None:
        super().__init__("The gateway failed. The request id tells the operator where to look.")


# Statuses that say nothing of the request itself: it may be answered a moment later. Not those that say that somebody
# behind the provider was too slow: he may be working on it.
_TRANSIENT = frozenset({408, 409, 425, 500, 502, 503, 520, 521, 522, 523, 529})
_THROTTLED = 429
_NOT_ASKED = frozenset({"busy", "skipped"})  # reasons


class ProviderFault(Exception):
    """What went wrong at one provider. `message` may go to a client: it holds no credential and no address.

    `reason` is one word for the record: connect, timeout, broken, status, malformed, error, busy, skipped. `is_sure`
    False: it was told by its words alone, which a client may have put there, so that it says nothing of the route's
    health. `is_credential`: this gateway's is refused.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        is_sure: bool = True,
        is_credential: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.is_sure = is_sure
        self.is_credential = is_credential

    @property
    def may_be_repeated(self) -> bool:
        """Whether the same provider may be asked once more: it has not worked on the request, as far as one can know.

        A 429 only where it has said when.
        """
        if self.reason != "status":
            return self.reason == "connect"
        return self.status in _TRANSIENT or (
            self.status == _THROTTLED and self.retry_after is not None and not self.is_credential
        )


class ProviderRefusal(Refusal):
    """A provider's own 4xx about the request itself: it reaches the client as it is, and no other route is tried.

    `is_too_long`: for the model's context window; a model with a larger one may do.
    """

    def __init__(self, status: int, error: dict[str, object], *, is_too_long: bool = False) -> None:
        message = error.get("message")
        super().__init__(message if isinstance(message, str) else "the provider refused the request")
        self.status = status
        self.type = str(error.get("type") or "invalid_request_error")
        param, code = error.get("param"), error.get("code")
        self.param = param if isinstance(param, str) else None
        self.code = None if code is None else str(code)
        self.is_too_long = is_too_long


def after_all(faults: list[ProviderFault], model: str) -> Refusal:
    """The client's answer once no route is left: the last fault decides, and a provider's 429 stays one."""
    last = faults[-1]
    waits = [fault.retry_after for fault in faults if fault.status == 429 and fault.retry_after is not None]
    who = "All providers" if len(faults) > 1 else "The provider"
    tried = f"{who} failed for model {model!r}"
    if all(fault.status == 429 and not fault.is_credential for fault in faults):
        message = f"{tried}: it is the provider's own rate limit, not yours. The last one said: {last.message}"
        return RateLimited(message, retry_after=min(waits, default=1.0))
    message = f"{tried}: {last.message}"
    if all(fault.reason in _NOT_ASKED for fault in faults):
        return Unavailable(message, retry_after=1.0)
    if last.reason == "timeout":
        return AllTimedOut(message)
    hopeless = all(fault.is_credential for fault in faults)  # until the operator has mended it
    return AllFailed(message, retry_after=last.retry_after, retry=False if hopeless else None)
