"""The settings of each kind of origin.

Invariant: no setting holds a secret itself: a header that is one holds a `Secret`, a URL has no userinfo.
Threads: any; immutable. Pure: a folder or a bundle of certificates that is not there is found out when the origin is
made, and so is what only the HTTP client can tell of a URL.
Design: docs/settings.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from daramjwee.buffers.config import LARGEST_COUNT, LARGEST_DURATION
from daramjwee.config.secret import REFERENCE_MEND, Secret, is_secret_name, is_secret_text, shown, text_of_path
from daramjwee.config.tiers import check_name
from daramjwee.config.words import name_of, unknown_field
from daramjwee.errors import HIDDEN, ConfigError, Problem
from daramjwee.units import parse_duration

if TYPE_CHECKING:
    import os
    from typing import TypeAlias

    from daramjwee.units import Duration

# What may stand in the name of a header (RFC 9110).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# What an `HttpOrigin` says itself of each request.
SET_BY_ORIGIN = frozenset({"range", "if-range", "if-none-match", "if-modified-since", "accept-encoding"})
# A name longer than this is cut where it is shown as a part of a field.
LONGEST_NAME = 80


class HttpOriginConfig(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """The settings of an `HttpOrigin`, which says what each is. Durations are seconds, or text such as "30s". `ConfigError`
    lists every problem.

    `base`: the URL that keys are paths below; "" where keys are whole URLs. `headers`: sent with each request; a secret
    among them is a `Secret`, or a mapping that names one. `verify`: False trusts any certificate, text is the path of a
    bundle of certificates to trust.
    """

    base: str
    headers: dict[str, str | Secret] = {}
    timeout: float = 30.0
    connect_timeout: float = 10.0
    retries: int = 2
    redirects: int = 10
    pool_size: int = 32
    verify: bool | str = True

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            *,
            base: str,
            headers: Mapping[str, str | Secret | Mapping[str, str]] = ...,
            timeout: Duration = "30s",
            connect_timeout: Duration = "10s",
            retries: int = 2,
            redirects: int = 10,
            pool_size: int = 32,
            verify: bool | str | os.PathLike[str] = True,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        wrong = _problem_of_base(self.base)
        if wrong is not None:
            # What cannot be taken apart may have a password where a port belongs, and after a blank is no URL.
            told = not wrong.startswith(("is no valid", "has blanks"))
            problems.append(Problem("base", shown(self.base) if told else HIDDEN, wrong))
        kept: dict[str, Any] = {"headers": _headers(self.headers, problems)}
        for field in ("timeout", "connect_timeout"):
            kept[field] = _seconds(field, getattr(self, field), problems)
        for field, least in (("retries", 0), ("redirects", 0), ("pool_size", 1)):
            count = getattr(self, field)
            if type(count) is not int or not least <= count <= LARGEST_COUNT:
                problems.append(Problem(field, count, f"must be an int from {least} to {LARGEST_COUNT:,}"))
        if not isinstance(self.verify, bool):
            try:
                if is_word(self.verify):
                    raise ValueError
                kept["verify"] = text_of_path(self.verify)
            except ValueError:
                mend = "must be True, False (without quotes), or the path of a bundle of certificates"
                problems.append(Problem("verify", self.verify, mend))
        if problems:
            raise ConfigError(problems, subject="HttpOriginConfig")
        for field, value in kept.items():
            msgspec.structs.force_setattr(self, field, value)

    def revealed_headers(self) -> dict[str, str]:
        """The headers with their secrets, for the origin that is made of this. `ConfigError` lists every secret that
        is not there."""
        found, problems = {}, []
        for name, value in self.headers.items():
            missing = value.missing() if isinstance(value, Secret) else None
            if missing is not None:
                problems.append(missing._replace(field=f"headers.{name}.{missing.field}"))
            else:
                found[name] = value.reveal() if isinstance(value, Secret) else value
        if problems:
            raise ConfigError(problems, subject="HttpOriginConfig")
        return found


class FileOriginConfig(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """The settings of a `FileOrigin`: keys are paths below `folder`, `~` expanded."""

    folder: str

    if TYPE_CHECKING:

        def __init__(self, *, folder: str | os.PathLike[str]) -> None: ...

    def __post_init__(self) -> None:
        try:
            msgspec.structs.force_setattr(self, "folder", text_of_path(self.folder))
        except ValueError as error:
            raise ConfigError([Problem("folder", self.folder, str(error))], subject="FileOriginConfig") from None


class GivenOrigin(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="given"):
    """A fetcher that a program gave to its cache; `name` says which. No origin can be made from it."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name, "GivenOrigin")


AnyOrigin: TypeAlias = HttpOriginConfig | FileOriginConfig | GivenOrigin
ORIGIN_KINDS: dict[str, type[AnyOrigin]] = {"http": HttpOriginConfig, "file": FileOriginConfig, "given": GivenOrigin}


def is_word(value: object) -> bool:
    """Whether text is a word for true or false, and no path."""
    return isinstance(value, str) and value.strip().lower() in {"true", "false", "yes", "no", "on", "off"}


def _problem_of_base(base: Any) -> str | None:
    """What can be told of a URL without a client. No message has a piece of it: a URL may hold a password."""
    from urllib.parse import urlsplit

    example = "such as https://example.org/objects/"
    if base == "":
        return None
    if not isinstance(base, str):
        return f"must be a URL as text, {example}"
    # Before anything else: what is wrong with a URL otherwise may be just that its password has a slash in it.
    if "@" in base.partition("://")[2].partition("?")[0] and not _plain_at(base):
        return "has userinfo (a name or password before @); send it as a header: " + REFERENCE_MEND
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        return f"is no valid URL; give one {example}"
    if parts.scheme.lower() not in {"http", "https"}:
        return f"must start with http:// or https://, {example}"
    if not parts.hostname:
        return f"has no host; give one, {example}"
    if port == 0:
        return "has port 0; leave the port out or give a real one"
    if any(ord(c) <= 32 or ord(c) == 127 for c in base):
        return "has blanks, control characters or line breaks in it; remove them"
    if "\\" in base:
        return "has a backslash in it; write / in its place"
    if "?" in base or "#" in base:
        return "must not have a query or fragment: keys come after it"
    return None


def _plain_at(base: str) -> bool:
    """Whether each @ of a URL stands in its path, below a host that is one for certain."""
    authority = base.partition("://")[2].partition("/")[0]
    return "@" not in authority and re.fullmatch(r"[\w.-]+(?::\d+)?|\[[0-9A-Fa-f:.]+\](?::\d+)?", authority) is not None


def _seconds(field: str, value: Any, problems: list[Problem]) -> float:
    try:
        seconds = parse_duration(value)
        if seconds == 0:
            raise ValueError("must be more than 0; an origin needs some time")
        if seconds > LARGEST_DURATION:
            raise ValueError("must be at most a year (366d); mind the unit")
    except ValueError as error:
        problems.append(Problem(field, value, str(error)))
        return 0.0
    return seconds


def _headers(headers: Any, problems: list[Problem]) -> dict[str, str | Secret]:
    if not isinstance(headers, Mapping):
        problems.append(Problem("headers", HIDDEN, "must be a table of names and values"))
        return {}
    found: dict[str, str | Secret] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        field = f"headers.{str(name)[:LONGEST_NAME]}"
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            # What stands after it may be the value: "authorization: Bearer ..." in one.
            plain = _HEADER_NAME.match(str(name))
            field = f"headers.{shown(plain[0])[:LONGEST_NAME] if plain else ''}..."
            problems.append(Problem(field, HIDDEN, "is no name of a header: letters, digits and dashes"))
            continue
        if name.lower() in SET_BY_ORIGIN:
            problems.append(Problem(field, HIDDEN, "is set by the origin itself; leave it out"))
        if name.lower() in seen:
            problems.append(Problem(field, HIDDEN, "is given twice: upper and lower case are the same; leave one out"))
        seen.add(name.lower())
        kept = _header(field, name, value, problems)
        if kept is not None:
            found[name] = kept
    return found


def _header(field: str, name: str, value: Any, problems: list[Problem]) -> str | Secret | None:
    if isinstance(value, Secret):
        return value
    if isinstance(value, Mapping):
        known = Secret.__struct_fields__
        unknown = [key for key in value if key not in known]
        problems += [Problem(f"{field}.{name_of(key)}", HIDDEN, unknown_field(key, known)) for key in unknown]
        try:
            secret = Secret(**{key: inner for key, inner in value.items() if key in known})
        except ConfigError as error:
            if not unknown:
                problems += [problem._replace(field=f"{field}.{problem.field}") for problem in error.problems]
            return None
        return None if unknown else secret
    if not isinstance(value, str):
        problems.append(Problem(field, HIDDEN, f"must be text; if it is a secret, {REFERENCE_MEND}"))
    elif is_secret_name(name) or is_secret_text(value.replace("?", "&")):  # the query of a URL has no place of its own
        problems.append(Problem(field, HIDDEN, f"is a secret: {REFERENCE_MEND}"))
    elif any(c in value for c in "\r\n\0") or not value.isascii():
        problems.append(Problem(field, HIDDEN, "must be ASCII text without line breaks"))
    else:
        return value
    return None
