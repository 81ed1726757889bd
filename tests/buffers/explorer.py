"""A small explorer of pure models: every order of steps from a start, equal states merged.

A model is a hashable state and a function `moves(state)` that yields pairs of a label and a step without arguments,
which returns the next state. A step that raises `AssertionError`, a state that `check` refuses and an end (a state
without moves) that `final` refuses are counterexamples: the shortest path to one is reported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

Moves = Callable[[Any], Iterable[tuple[str, Callable[[], Any]]]]


class Explored(NamedTuple):
    """How much was seen: distinct states, steps between them, and states from which nothing goes on."""

    states: int
    steps: int
    ends: int


class Counterexample(AssertionError):
    """A promise is broken. `path`: the labels of the steps that lead there from the start."""

    def __init__(self, why: object, path: tuple[str, ...], state: object) -> None:
        self.path = path
        lines = "\n".join(f"  {number}. {label}" for number, label in enumerate(path, start=1))
        super().__init__(f"{why or 'a promise is broken'}, after {len(path)} steps:\n{lines}\nin the state {state}")


def explore(
    start: Hashable,
    moves: Moves,
    *,
    check: Callable[[Any], None] | None = None,
    final: Callable[[Any], None] | None = None,
    most: int = 300_000,
) -> Explored:
    """Go every way there is. Raises `Counterexample`, or `RuntimeError` beyond `most` states."""
    came: dict[Hashable, tuple[Hashable, str] | None] = {start: None}
    todo = deque([start])
    steps = ends = 0

    def path_to(state: Hashable, *last: str) -> tuple[str, ...]:
        labels = list(reversed(last))
        while (step := came[state]) is not None:
            state, label = step
            labels.append(label)
        return tuple(reversed(labels))

    while todo:
        state = todo.popleft()
        try:
            if check is not None:
                check(state)
        except AssertionError as error:
            raise Counterexample(error, path_to(state), state) from error
        count = 0
        for label, step in moves(state):
            count += 1
            try:
                following = step()
            except AssertionError as error:
                raise Counterexample(error, path_to(state, label), state) from error
            if following not in came:
                came[following] = (state, label)
                todo.append(following)
        steps += count
        if not count:
            ends += 1
            try:
                if final is not None:
                    final(state)
            except AssertionError as error:
                raise Counterexample(error, path_to(state), state) from error
        if len(came) > most:
            raise RuntimeError(f"more than {most} states: bound the model")
    return Explored(len(came), steps, ends)
