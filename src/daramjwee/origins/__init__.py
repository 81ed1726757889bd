"""Origins: where objects come from when no tier has them. `HttpOrigin`, `FileOrigin`, or any callable of yours."""

from __future__ import annotations

from daramjwee.errors import ConfigError, Problem
from daramjwee.origins.file import FileOrigin
from daramjwee.origins.http import HttpOrigin
from daramjwee.origins.url import redact_url

__all__ = ["FileOrigin", "HttpOrigin", "origin_for", "redact_url"]


def origin_for(url: str) -> HttpOrigin | FileOrigin:
    """An origin whose keys are URLs like `url`: http, https or file. `ConfigError` for any other."""
    scheme, colon, _ = url.partition(":")
    if colon and scheme.lower() in {"http", "https"}:
        return HttpOrigin()
    if colon and scheme.lower() == "file":
        return FileOrigin()
    mend = "give an http, https or file URL, such as https://example.org/model.bin or file:///srv/model.bin"
    raise ConfigError([Problem("url", redact_url(url), mend)], subject="origin")
