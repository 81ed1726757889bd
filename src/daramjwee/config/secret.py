"""Secrets by reference: where one stands, never what it is; and values as messages may show them.

Invariant: no repr, problem or mapping made here holds the value of a secret; only `Secret.reveal` returns it.
Threads: any; only `reveal` and `missing` look outside.
Design: docs/settings.md
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec

from daramjwee.errors import HIDDEN, ConfigError, Problem, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable

REFERENCE_MEND = 'give it by reference, { env = "NAME" } or { file = "/run/secrets/x" }'
# A secret is a line of text; what is larger is another file.
LARGEST_SECRET = 64 * 1024

_SECRET_NAME = re.compile(
    r"authorization|cookie|token|secret|key|passw|credential|signature|bearer|session|jwt|hmac"
    r"|(?:^|[-_.])(?:auth|pass|pwd|pin|sid|cred|creds)(?:$|[-_.])",
    re.IGNORECASE,
)
# What headers begin with, userinfo, a token that says what it is (JWT), and a part of a query.
_SECRET_TEXT = re.compile(
    r"^\s*(?:bearer|basic|digest|token|negotiate)\s|(?:^|:)//[^/\s]*@|^[^/\s:@]*:[^\s@]*@|^\s*eyJ[\w-]{4,}\."
    r"|^[^?]*&(?:[\w.-]*[-_.])?(?:token|secret|key|sig|signature|password)=",
    re.IGNORECASE,
)
# A name of a secret with a value, as people write pairs. Only hidden: in a header it may well be no secret.
_SECRET_PAIR = re.compile(
    r"(?:^|[?&;,\s])[\w.-]*(?:token|secret|key|sig|signature|passw(?:or)?d|pwd|credentials?|authorization)\s*[=:]\s*\S",
    re.IGNORECASE,
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret that stands in an environment variable or in a file, and is read when it is needed.

    `env`: the variable's name. `file`: the path of a file that holds nothing else; line ends after it do not count.
    One of the two. Neither `repr` nor anything else but `reveal` shows the value.
    """

    env: str | None = None
    file: str | None = None

    if TYPE_CHECKING:

        def __init__(self, *, env: str | None = None, file: str | os.PathLike[str] | None = None) -> None: ...

    def __post_init__(self) -> None:
        # What may be given is wider than what the fields say.
        env: Any = self.env
        file: Any = self.file
        problems = []
        if env is not None and not (isinstance(env, str) and _ENVIRONMENT_NAME.fullmatch(env)):
            # Not shown: what is no name may be the secret itself.
            problems.append(Problem("env", HIDDEN, "must be the name of an environment variable, such as API_TOKEN"))
        if file is not None:
            try:
                msgspec.structs.force_setattr(self, "file", text_of_path(file))
            except ValueError as error:
                problems.append(Problem("file", HIDDEN, str(error)))
        if env is None and file is None:
            problems.append(Problem("env", None, 'is missing: give env = "NAME", or file = "/run/secrets/x"'))
        if env is not None and file is not None:
            problems.append(Problem("env", HIDDEN, "is given beside file: give one of the two"))
        if problems:
            raise ConfigError(problems, subject="Secret")

    def reveal(self) -> str:
        """The secret itself, read anew each time. `ConfigError` says what is missing."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                mend = "is not set" if value is None else "is set to nothing"
                raise self._refused("env", self.env, f"{mend}; give the environment variable the secret's value")
            return value
        assert self.file is not None
        try:
            with open(self.file, encoding="utf-8", opener=open_at_once) as file:
                if not is_regular(file):
                    raise self._refused("file", self.file, "is no regular file; write the secret into one")
                value = file.read(LARGEST_SECRET + 1)
        except OSError as error:
            raise self._refused("file", self.file, f"cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise self._refused("file", self.file, "is no text (UTF-8)") from None  # its cause would show bytes of it
        if len(value) > LARGEST_SECRET:
            raise self._refused("file", self.file, f"is longer than {LARGEST_SECRET:,} characters: no secret is")
        value = value.rstrip("\r\n")
        if not value:
            raise self._refused("file", self.file, "is empty; write the secret into it")
        return value

    def missing(self) -> Problem | None:
        """Why `reveal` would fail here and now; None when it would not."""
        try:
            self.reveal()
        except ConfigError as error:
            return error.problems[0]
        return None

    def to_mapping(self) -> dict[str, str]:
        """The reference as plain data."""
        return {"env": self.env} if self.env is not None else {"file": str(self.file)}

    def _refused(self, field: str, value: str, mend: str) -> ConfigError:
        return ConfigError([Problem(field, value, mend)], subject="Secret")


def is_secret_name(name: object) -> bool:
    """Whether what stands under this name is to be taken for a secret."""
    return _SECRET_NAME.search(str(name)) is not None


def is_secret_text(value: str) -> bool:
    """Whether this text gives itself away as a secret, whatever name it stands under."""
    return _SECRET_TEXT.search(value) is not None


def shown(value: Any, name: object = "") -> Any:
    """`value` of the field `name` as a problem may show it: what may be a secret is hidden, at any depth."""
    if value is not None and is_secret_name(name):
        return HIDDEN
    if isinstance(value, str):
        if is_secret_text(value) or _SECRET_PAIR.search(value):
            return HIDDEN
        if "://" in value:
            # A password with a slash in it looks like a host and a path.
            return redact_url(value) if "@" not in value else HIDDEN
        return value
    if isinstance(value, Mapping):
        return {_shown_name(key): shown(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    return tuple(shown(inner) for inner in value) if type(value) is tuple else value


def _shown_name(name: Any) -> Any:
    return shown(name) if isinstance(name, str) else name


def without_secrets(problems: Iterable[Problem]) -> list[Problem]:
    """The problems as anybody may see them, whatever was given for a value, or for a name."""
    return [problem._replace(field=shown(problem.field), value=shown(problem.value)) for problem in problems]


def open_at_once(path: str, flags: int) -> int:
    """An `opener` of `open` that waits for nobody: a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_regular(file: IO[Any]) -> bool:
    """Whether an open file is one with contents of its own: no pipe, no device."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def is_url(text: str) -> bool:
    """Whether text begins as a URL does: joined to a folder it would be a path, and show what it holds."""
    return _URL.match(text) is not None


def text_of_path(value: object) -> str:
    """A path as text, `~` expanded. `ValueError` says why it can be none."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError("must be a path, as text")
    if is_url(text):
        raise ValueError("is a URL; give a path")
    if "\0" in text:
        raise ValueError("has a NUL in it: no path has")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("has characters in it that no path can have") from None
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(f"there is no user {user}; write ./{user} if a folder is called that")
    return expanded
