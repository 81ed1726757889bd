"""Sizes and durations: what is accepted, what is refused, and what comes back printed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.units import GIB, KIB, MIB, counted, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (7, 7),
        ("7", 7),
        ("64KiB", 64 * KIB),
        ("64 kib", 64 * KIB),
        ("1.5MiB", 3 * MIB // 2),
        ("20GiB", 20 * GIB),
        ("1TiB", 1024 * GIB),
        ("2kB", 2000),
        ("3MB", 3_000_000),
        ("4GB", 4_000_000_000),
        ("5M", 5 * MIB),
        ("12B", 12),
    ],
)
def test_a_size_is_an_int_or_text_with_a_unit(text: int | str, size: int) -> None:
    """Powers of 1024 with an i, of 1000 with a B alone."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1KiB", -1, 1.5, None, True, "1e3", "10 bananas", "KiB", "0x10", [1]])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    """The message shows what would be accepted."""
    with pytest.raises(ValueError, match="64KiB"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["٢٥٦MiB", "²MiB", "1_000", "+1KiB", "1.KiB", ".5KiB", "0.5", "1.5B", "1e3MiB", "1,5MiB", "½GiB"]
)
def test_digits_and_marks_of_others_are_none_of_a_size(text: str) -> None:
    """Neither those of other scripts nor Python's; and nothing is rounded to no byte at all."""
    with pytest.raises(ValueError, match="64KiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["٣٠s", "1_000", "+1s", "1.s", ".5s", "1e3", "1,5s", "-0s"])
def test_digits_and_marks_of_others_are_none_of_a_duration(text: str) -> None:
    """As of a size."""
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


def test_a_size_is_exact_however_large() -> None:
    """A float would lose the last digits."""
    assert parse_size("9007199254740993") == 2**53 + 1
    assert parse_size(f"{2**60 + 1}B") == 2**60 + 1
    assert parse_size("9" * 29 + "TiB") == (10**29 - 1) * 1024 * GIB


@pytest.mark.parametrize("text", ["1" + " " * 1_000_000 + "!", " " * 1_000_000 + "1!", "9" * 1_000_000 + "!"])
def test_text_of_any_length_is_refused_at_once(text: str) -> None:
    """What nobody means is not tried in every way."""
    for parse in (parse_size, parse_duration):
        with pytest.raises(ValueError, match="give"):
            parse(text)
    assert parse_size(" " * 1_000_000 + "1 KiB\N{NO-BREAK SPACE}") == KIB


def test_no_duration_is_a_negative_zero() -> None:
    """It would be printed as one."""
    assert str(parse_duration(-0.0)) == "0.0"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        ("30", 30.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_text(text: float | str | timedelta, seconds: float) -> None:
    """Always seconds inside."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", -1, "-5s", float("inf"), float("nan"), None, True, timedelta(seconds=-1), "5 apples", object()]
)
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    """The message shows what would be accepted."""
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


@given(st.integers(0, 2**50))
def test_a_printed_size_parses_back_to_nearly_itself(size: int) -> None:
    """Within the one decimal that is shown."""
    assert abs(parse_size(format_size(size)) - size) <= max(size, 20) * 0.05


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (MIB, "1MiB"), (20 * GIB, "20GiB")]
)
def test_sizes_are_printed_in_the_largest_unit_that_fits(size: int, text: str) -> None:
    """Exact where the unit divides them."""
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00085, "850us"), (0.012, "12.0ms"), (1.5, "1.50s"), (150, "2.5m"), (10800, "3.0h")]
)
def test_durations_are_printed_for_people(seconds: float, text: str) -> None:
    """In the unit one would say them in."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("value", ["9" * 400 + "GiB", "9" * 400])
def test_a_size_beyond_all_numbers_is_refused_as_one(value: str) -> None:
    """Not an error from somewhere inside."""
    with pytest.raises(ValueError, match="more than a number can say"):
        parse_size(value)


@pytest.mark.parametrize("value", [10**400, "9" * 400, "9" * 400 + "d"])
def test_a_duration_beyond_all_numbers_is_refused_as_one(value: object) -> None:
    """As a size is."""
    with pytest.raises(ValueError):
        parse_duration(value)  # type: ignore[arg-type]  # what a caller may give


@pytest.mark.parametrize(
    ("count", "names", "said"),
    [
        (0, ("tier",), "0 tiers"),
        (1, ("tier",), "1 tier"),
        (2000, ("tier",), "2,000 tiers"),
        (1, ("entry", "entries"), "1 entry"),
        (0, ("entry", "entries"), "0 entries"),
    ],
)
def test_one_is_counted_without_an_s(count: int, names: tuple[str, ...], said: str) -> None:
    """And many with commas."""
    assert counted(count, *names) == said
