"""Values that rooms hand each other, and the errors they raise."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

import daramjwee
from daramjwee import (
    BufferPool,
    Cache,
    CacheMiss,
    ConfigError,
    DaramjweeError,
    FetchResult,
    Freshness,
    Metadata,
    Overloaded,
)
from daramjwee.buffers.holdings import Refused
from daramjwee.errors import Problem, shorten
from daramjwee.model import NULL_OBSERVER, Event, Observer, check_key


def test_freshness_takes_every_form_of_duration_and_never_changes() -> None:
    """Seconds inside, equal by value, hashable, picklable, frozen."""
    freshness = Freshness(fresh="5m", stale_while_revalidate=60, stale_if_error=None, negative="30s")
    assert (freshness.fresh, freshness.stale_while_revalidate, freshness.negative) == (300.0, 60.0, 30.0)
    assert freshness == Freshness(300, 60, None, 30)
    assert freshness != Freshness()
    assert freshness != "5m"
    assert len({freshness, Freshness(300, 60, None, 30)}) == 1
    assert pickle.loads(pickle.dumps(freshness)) == freshness
    assert repr(freshness) == "Freshness(fresh=300s, stale_while_revalidate=60s, negative=30s)"
    with pytest.raises(AttributeError, match="immutable"):
        freshness.fresh = 1.0
    with pytest.raises(AttributeError, match="immutable"):
        del freshness.fresh


def test_freshness_names_every_field_that_is_no_duration() -> None:
    """All at once, each with its value."""
    with pytest.raises(ConfigError) as caught:
        Freshness(fresh="soon", stale_if_error=-1, negative=object())
    assert [problem.field for problem in caught.value.problems] == ["fresh", "stale_if_error", "negative"]
    assert "Freshness has 3 problems" in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "validator"),
    [
        (Metadata(), None),
        (Metadata(etag='"1"'), '"1"'),
        (Metadata(etag='W/"1"'), None),
        (Metadata(etag='W/"1"', digest="sha256:00"), "sha256:00"),
    ],
)
def test_only_a_digest_or_a_strong_etag_proves_that_bytes_are_the_same(
    metadata: Metadata, validator: str | None
) -> None:
    """A weak ETag proves nothing of bytes."""
    assert metadata.strong_validator == validator


def test_a_result_takes_its_body_first_and_the_rest_by_name() -> None:
    """Two results do not share their attributes."""
    one, two = FetchResult(b"x", size=1), FetchResult(b"y")
    assert (one.body, one.size, one.cacheable) == (b"x", 1, True)
    assert one.attributes is not two.attributes
    with pytest.raises(TypeError):
        FetchResult(b"x", 1)


def test_every_error_is_a_daramjwee_error_with_an_exit_status() -> None:
    """One root, and a status for the command line on each class."""
    errors = [kind for kind in vars(daramjwee).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    for name in daramjwee.__all__:
        kind = getattr(daramjwee, name)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            assert issubclass(kind, DaramjweeError), name
            assert 1 <= kind.exit_status <= 9
            errors.append(kind)
    assert len(set(errors)) >= 13


PUBLIC_ERRORS = [
    value
    for name in daramjwee.__all__
    if isinstance(value := getattr(daramjwee, name), type) and issubclass(value, DaramjweeError)
]
MADE = {
    ConfigError: lambda: ConfigError([Problem("workers", 0, "must be at least 1")], subject="Cache"),
    CacheMiss: lambda: CacheMiss("k", "ask somebody"),
    Overloaded: lambda: Overloaded("no room", retry_after=1.5),
    Refused: lambda: Refused(4096, "Cannot allocate memory"),
}


@pytest.mark.parametrize("kind", [*PUBLIC_ERRORS, Refused])
def test_an_error_reaches_another_process_as_it_is(kind: type[Exception]) -> None:
    """A worker's error that cannot be made again there breaks the pool of processes that waits for it."""
    error = MADE.get(kind, lambda: kind("what happened"))()
    error.add_note("seen in a worker")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind and str(again) == str(error)
        assert again.args == error.args and vars(again) == vars(error)


def test_a_value_that_no_other_process_can_have_goes_there_as_it_is_shown() -> None:
    error = ConfigError(
        [Problem("origin", lambda: None, "give a name"), Problem("workers", "x" * 500, "give a number")]
    )
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.subject == error.subject
    assert again.problems[0].value == repr(error.problems[0].value)[:200]
    assert again.problems[1] == error.problems[1]


def test_messages_read_as_they_should() -> None:
    """A miss is a KeyError that reads like a sentence; an overload says when to come back; one problem is singular."""
    assert str(CacheMiss("k")) == "no tier has 'k': pass fetch=, or give the Cache an origin"
    assert isinstance(CacheMiss("k"), KeyError)
    error = Overloaded("no room", retry_after=1.5)
    assert (str(error), error.retry_after) == ("no room; retry in 1.5 s", 1.5)
    assert str(ConfigError([Problem("workers", 0, "must be at least 1")], subject="Cache")) == (
        "Cache has 1 problem:\n  workers = 0: must be at least 1"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", "''"),
        ("soon", "'soon'"),
        (None, "None"),
        ("https://joe:secret@example.org/?key=secret", "'https://***@example.org/?key=***'"),
        ("\udc80", r"'\udc80'"),
    ],
)
def test_a_refused_value_is_shown_so_that_its_type_can_be_told(value: object, shown: str) -> None:
    """Text in quotes, however empty; a URL without its secrets."""
    assert str(Problem("field", value, "mend it")) == f"field = {shown}: mend it"


@pytest.mark.parametrize("value", ["x" * 100_000, b"x" * 100_000, list(range(100_000))])
def test_a_long_value_does_not_drown_the_message(value: object) -> None:
    """Its beginning is enough to know it by."""
    assert len(str(Problem("field", value, "mend it"))) < 250


@pytest.mark.parametrize(("key", "advised"), [(b"k", True), (None, False), (7, False)])
def test_only_bytes_are_told_to_be_decoded(key: object, advised: bool) -> None:
    """Nothing else can be."""
    with pytest.raises(ConfigError, match="must be str") as caught:
        check_key(key)
    assert ("decode" in str(caught.value)) is advised


def test_annotations_of_the_public_calls_can_be_resolved_while_running() -> None:
    """`typing.get_type_hints` finds every name: tools that read annotations work."""
    calls = [value for name, value in vars(Cache).items() if callable(value) and name not in {"__enter__", "__exit__"}]
    calls += [BufferPool.__init__, BufferPool.acquire, BufferPool.copy]
    for call in calls:
        if call.__name__ not in {"_get", "__init__"} and call.__name__.startswith("_"):
            continue
        assert typing.get_type_hints(call), call
    for name in ("Body", "Fetcher", "Buffer"):
        assert hasattr(daramjwee.model, name)


def test_what_stands_for_no_default_says_so_in_help() -> None:
    """No address of an object in a signature."""
    for call in (Cache, Cache.get, Cache.open, BufferPool):
        assert "object at 0x" not in str(inspect.signature(call)).replace("SYSTEM_CLOCK", ""), call
    assert "<raise>" in str(inspect.signature(Cache.get))


def test_long_keys_are_shown_short() -> None:
    """Begin and end are kept, and nothing of a message is drowned."""
    shown = shorten("a" * 1000 + "the end")
    assert len(shown) < 100
    assert shown.startswith("'aaa")
    assert shown.endswith("the end'")


def test_the_null_observer_takes_everything() -> None:
    """It fulfils the protocol and keeps nothing."""
    assert isinstance(NULL_OBSERVER, Observer)
    NULL_OBSERVER.notice(Event("corrupt", "k"))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """The lazy front door says so, and lists what there is."""
    with pytest.raises(AttributeError, match="AsyncNothing"):
        daramjwee.AsyncNothing  # noqa: B018
    assert "Cache" in dir(daramjwee)
