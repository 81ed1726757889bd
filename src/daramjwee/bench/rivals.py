"""Contenders of which some may not be there, or fail: that is a row of the report, never its end.

Invariant: ours must work, and an error of ours is an error of the scenario; a rival has figures, or the reason why not.
Threads: one puts contenders together and measures them.
Design: docs/design/bench.md
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from daramjwee.bench.samples import Row
from daramjwee.bench.timing import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daramjwee.bench.timing import Timed

NOT_INSTALLED = "not installed"
# What a row has room for; errors of some libraries go on for a page.
MOST_WORDS = 160


def failure(error: BaseException | str) -> str:
    """What a row says of a rival that failed: the last line, which is where the error is."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return f"failed: {last.strip()}"[:MOST_WORDS]


class Lineup:
    """The contenders of one comparison. `absent`: rivals without figures, and why."""

    def __init__(self) -> None:
        self.contenders: dict[str, Timed] = {}
        self.absent: dict[str, str] = {}

    def ours(self, name: str, contender: Timed) -> None:
        """One that must work."""
        self.contenders[name] = contender

    def rival(self, name: str, make: Callable[[], Timed]) -> None:
        """One that `make` makes, where it can; it runs once, so that what cannot work is known before anything is timed."""
        try:
            contender = make()
            contender(1)
        except ImportError:
            self.absent[name] = NOT_INSTALLED
        except Exception as error:  # noqa: BLE001 - whatever a rival raises, its row says so
            self.absent[name] = failure(error)
        else:
            self.contenders[name] = self._guarded(name, contender)

    def figures(self, *, rounds: int, seconds: float) -> dict[str, list[float]]:
        """Seconds per operation, as `in_turns` gives them, of all that worked to the end."""
        measured = in_turns(self.contenders, rounds=rounds, seconds=seconds)
        return {name: figures for name, figures in measured.items() if inf not in figures}

    def rows(self, scenario: str, names: Iterable[str], title: Callable[[str], str] = str) -> list[Row]:
        """A row for each of the rivals `names` that has no figures; `title` makes its name."""
        return [
            Row(scenario=scenario, name=title(name), note=self.absent[name]) for name in names if name in self.absent
        ]

    def _guarded(self, name: str, contender: Timed) -> Timed:
        def run(loops: int) -> float:
            if name not in self.absent:
                try:
                    return contender(loops)
                except Exception as error:  # noqa: BLE001 - as above
                    self.absent[name] = failure(error)
            return inf

        return run
