"""Every error daramjwee raises on purpose, and the state each one leaves behind.

All are `DaramjweeError`. A message says what happened, to which key or field, with which value, and what
to do. `exit_status` is what the command line exits with for that kind of error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


# Characters of a faulty value that a message shows: enough to know it by, whatever it is.
LONGEST_SHOWN = 200
# Values of a problem that another process gets as they are; of others it gets what is shown.
SENDABLE = (type(None), bool, int, float, str, bytes)


class Problem(NamedTuple):
    """One fault of a configuration: the field, the value as it was given, and what to change."""

    field: str
    value: object
    mend: str

    def __str__(self) -> str:
        if not isinstance(self.value, str):
            shown = repr(self.value)
        elif self.value[:1].isdigit() and self.value.isalnum() and not self.value.isdigit():
            shown = self.value  # "256KiB", "5m": as it was written, and taken for nothing else
        else:
            shown = shorten(self.value, LONGEST_SHOWN)
        if len(shown) > LONGEST_SHOWN + 10:
            shown = f"{shown[:LONGEST_SHOWN]}..."
        return f"{self.field} = {shown}: {self.mend}"


class DaramjweeError(Exception):
    """Root of all errors raised on purpose by daramjwee."""

    exit_status = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process gets it as it is. By default it would be made from its message, which is not what `__init__` of
        # each takes: a worker's error would then break the pool of processes that waits for its result.
        return _made_again, (type(self), self.args, self._state())

    def _state(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _made_again(kind: type[DaramjweeError], args: tuple[Any, ...], state: dict[str, Any]) -> DaramjweeError:
    error = kind.__new__(kind, *args)  # which sets `args`
    error.__dict__.update(state)
    return error


class ConfigError(DaramjweeError, ValueError):
    """A setting or an argument was refused; nothing was changed.

    `problems` lists every fault found, each with `field`, `value` and `mend`. `subject`: what has them.
    """

    exit_status = 2

    def __init__(self, problems: Iterable[Problem], *, subject: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.subject = subject
        count = len(self.problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{subject} has {count} problem{'s' if count != 1 else ''}:\n{lines}")

    def _state(self) -> dict[str, Any]:
        # The value at fault may be anything, also what no other process can have: a pool, a local function.
        sent = tuple(
            problem
            if isinstance(problem.value, SENDABLE)
            else problem._replace(value=repr(problem.value)[:LONGEST_SHOWN])
            for problem in self.problems
        )
        return {**super()._state(), "problems": sent}


class LeaseError(DaramjweeError):
    """A lease was released twice or used after its release; the pool itself is unharmed."""


class CacheMiss(DaramjweeError, KeyError):
    """No tier has the `key` and there is no origin to ask; nothing was changed. `hint`: what to do."""

    exit_status = 3

    def __init__(self, key: str, hint: str = "pass fetch=, or give the Cache an origin") -> None:
        super().__init__(f"no tier has {shorten(key)}: {hint}")
        self.key = key

    def __str__(self) -> str:  # KeyError would show the message quoted
        return str(self.args[0])


class NotFound(DaramjweeError):
    """The origin says the key does not exist. A fetcher may raise it; it is then cached as negative."""

    exit_status = 4


class NotModified(DaramjweeError):
    """Raised by a fetcher that was given `FetchRequest.previous`: the stale copy is fresh again."""


class FetchError(DaramjweeError):
    """The origin failed, or sent something else than it said. Nothing was published, nothing is left."""

    exit_status = 5


class FillAborted(DaramjweeError):
    """The fill this reader was following ended before its end, for a reason that is not the origin's."""

    exit_status = 5


class StoreError(DaramjweeError):
    """A tier failed (disk full, folder not writable). Reads go on from other tiers or the origin."""

    exit_status = 6


class CorruptEntry(StoreError):
    """A stored entry does not match its checksum or size. It is dropped and never served again."""

    exit_status = 7


class Overloaded(DaramjweeError):
    """No room within the limits; the operation was not started and nothing changed. The `message` says which limit.

    `retry_after`: seconds after which trying again makes sense.
    """

    exit_status = 8

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(f"{message}; retry in {retry_after:.1f} s")
        self.retry_after = retry_after


class LimitExceeded(DaramjweeError):
    """One object is larger than a stated limit allows; nothing of it was kept."""

    exit_status = 9


class Closed(DaramjweeError, ValueError):
    """The cache, pool, store or stream was closed before this call.

    A `ValueError` too: that is what the files of Python raise, and what wraps a stream expects.
    """


HIDDEN = "***"


def redact_url(text: str) -> str:
    """`text` as logs and errors may show it: a URL without userinfo, query values and fragment.

    A key that is no URL is shown as it is, but for what follows a question mark.
    """
    rest, hash_mark, _ = text.partition("#")
    rest, question, query = rest.partition("?")
    scheme, separator, tail = rest.partition("://")
    if separator:
        authority, slash, path = tail.partition("/")
        if "@" in authority:
            authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
        rest = f"{scheme}{separator}{authority}{slash}{path}"
    if question:
        # A piece without "=" may be a token just as well as a name.
        pieces = [p.partition("=") for p in query.split("&")]
        rest += "?" + "&".join(f"{name}={HIDDEN}" if equals else HIDDEN for name, equals, _ in pieces)
    return rest + (f"#{HIDDEN}" if hash_mark else "")


def shorten(key: str, limit: int = 80) -> str:
    """The key as messages show it: quoted, and cut in the middle when longer than `limit` characters.

    A key that is a URL is shown without its secrets: signed URLs are keys too.
    """
    if "://" in key:
        key = redact_url(key)
    if len(key) > limit:
        key = f"{key[: limit // 2]}...{key[-limit // 4 :]}"
    return repr(key)
