"""The reference is made of docstrings: they name every parameter, its unit, and every error."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import daramjwee
from daramjwee import (
    CacheStream,
    CacheWriter,
    DaramjweeError,
    FileStore,
    Lease,
    MemoryStore,
    Store,
    buffers,
    config,
    policies,
    stores,
    testing,
)

# The library makes them; a program only uses them.
NOT_MADE_BY_PROGRAMS = (CacheStream, CacheWriter, Lease, testing.StoreSuite, enum.Enum)
# What an annotation means, and the words that say so.
UNITS = {
    "Duration": r"second|duration|\d+ s\b",
    "Size": r"byte|[KMGT]iB",
    "float": r"second|duration|share|percent|unit|leases|bytes",
}


class Public(NamedTuple):
    """A callable that a program may call, and all that is said about it."""

    name: str
    call: Callable[..., object]
    text: str


def public_calls() -> Iterator[Public]:
    """Functions, classes that programs make, and their methods: as docs/reference/ shows them."""
    seen: set[int] = set()
    for module in (daramjwee, buffers, config, stores, policies, testing):
        for name in module.__all__:
            value = getattr(module, name)
            if id(value) in seen:
                continue
            seen.add(id(value))
            if inspect.isclass(value):
                yield from calls_of(f"{module.__name__}.{name}", value)
            elif inspect.isfunction(value):
                yield Public(f"{module.__name__}.{name}", value, inspect.getdoc(value) or "")


def calls_of(name: str, cls: type) -> Iterator[Public]:
    """A class that is made, and its methods. A method may leave to its class what holds for all of them."""
    whole = inspect.getdoc(cls) or ""
    # Settings of something, an answer without problems: what their fields mean stands there.
    for other in re.findall(r"(?:settings of an?|An) `(\w+)`", whole):
        whole += "\n" + (inspect.getdoc(getattr(daramjwee, other, None) or getattr(config, other)) or "")
    promise = getattr(cls, "_is_protocol", False)
    plain = issubclass(cls, DaramjweeError) and "__init__" not in vars(cls)
    if not (promise or plain or issubclass(cls, NOT_MADE_BY_PROGRAMS)):
        yield Public(name, cls, whole)
    for method, value in vars(cls).items():
        call = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if method.startswith(("_", "test_")) or not inspect.isfunction(call):
            continue
        if cls in (FileStore, MemoryStore) and not hasattr(Store, method) and method != "reconfigure":
            continue  # what our own rooms say to each other
        text = inspect.getdoc(getattr(cls, method)) or inspect.getdoc(getattr(Store, method, None)) or ""
        if text.startswith("Internal,"):
            continue
        yield Public(f"{name}.{method}", call, f"{text}\n{whole}" if text else "")


CALLS = sorted(public_calls())


def test_every_public_call_is_explained():
    """An empty place in the reference helps nobody."""
    assert len(CALLS) > 150
    assert [call.name for call in CALLS if not call.text.strip()] == []


def test_every_parameter_is_named_in_the_docstring():
    """In that of the method, of its class, or of the class whose settings they are."""
    missing = []
    for name, call, text in CALLS:
        named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text)))) | {"self", "cls"}
        given = [parameter for parameter in inspect.signature(call).parameters if not parameter.startswith("_")]
        missing += [f"{name}: {parameter}" for parameter in given if parameter not in named]
    assert missing == []


def test_every_error_that_a_call_raises_itself_is_named_in_the_docstring():
    """Those of deeper calls cannot be found by reading one function; the docstrings name the ones that matter."""
    missing = []
    for name, call, text in CALLS:
        if inspect.isfunction(call):
            missing += [f"{name}: {error}" for error in raised(call) if error not in text]
    assert missing == []


def raised(call: Callable[..., object]) -> set[str]:
    """Classes of exceptions that the function's own lines raise; `closed_error(...)` makes a `Closed`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(call)))
    calls = {node.exc.func for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)}
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    return {
        "Closed" if name == "closed_error" else name for name in names if name[0].isupper() or name == "closed_error"
    }


@pytest.mark.parametrize("kind", sorted(UNITS))
def test_a_number_says_what_it_counts(kind):
    """A float without a unit is read as anything."""
    silent = []
    for name, call, text in CALLS:
        for parameter in inspect.signature(call).parameters.values():
            annotation = str(parameter.annotation).removeprefix("<class '")
            if re.match(rf"{kind}\b", annotation) and re.search(UNITS[kind], text) is None:
                silent.append(f"{name}: {parameter.name}")
    assert silent == []
