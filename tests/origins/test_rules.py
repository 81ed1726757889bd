"""What headers and URLs mean: tables of cases, and properties of the redaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daramjwee.errors import NotFound, shorten
from daramjwee.origins.rules import encodings_of, lifetime_of, part_size, size_of, weaken, wrong_part
from daramjwee.origins.url import join_url, problem_of, redact_url, split_userinfo


@pytest.mark.parametrize(
    ("headers", "cacheable", "ttl"),
    [
        ({}, True, None),
        ({"Cache-Control": "max-age=60"}, True, 60.0),
        ({"Cache-Control": "public, MAX-AGE = 60 , s-maxage=10"}, True, 10.0),
        ({"Cache-Control": 'max-age="60"', "Age": "20"}, True, 40.0),
        ({"Cache-Control": "max-age=60", "Age": "100"}, True, 0.0),
        ({"Cache-Control": "max-age=60", "Age": "minus"}, True, 60.0),
        ({"Cache-Control": "max-age=soon"}, True, None),
        ({"Cache-Control": "max-age=" + "9" * 5000}, True, None),
        ({"Cache-Control": "no-cache, max-age=60"}, True, 0.0),
        ({"Cache-Control": 'no-cache="Set-Cookie", max-age=60'}, True, 60.0),
        ({"Cache-Control": "No-Store"}, False, None),
        ({"Cache-Control": "private, max-age=60"}, False, 60.0),
        ({"Vary": " * "}, False, None),
        ({"Vary": "Accept"}, True, None),
        ({"Cache-Control": 'x="no-store"'}, True, None),
        ({"Cache-Control": ",,=;"}, True, None),
    ],
)
def test_what_may_be_kept_and_for_how_long(headers, cacheable, ttl):
    assert lifetime_of(headers) == (cacheable, ttl)


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({"Content-Length": "12"}, 12),
        ({"Content-Length": " 0 "}, 0),
        ({"Content-Length": "-1"}, None),
        ({"Content-Length": "1, 2"}, None),
        ({"Content-Length": "१२"}, None),
        ({"Content-Length": "12", "Content-Encoding": "gzip"}, None),
        ({"Content-Length": "12", "Content-Encoding": "identity"}, 12),
        ({"Content-Length": "12", "Transfer-Encoding": "chunked"}, None),
        ({}, None),
    ],
)
def test_the_size_is_what_will_be_read_or_unknown(headers, size):
    assert size_of(headers) == size


def test_parts_encodings_and_weak_tags():
    assert part_size({"Content-Range": "bytes 5-9/10"}) == 5
    assert part_size({"Content-Range": "lines 5-9/10"}) is None
    assert wrong_part({"Content-Range": "bytes 5-9/*", "Content-Length": "5", "ETag": '"v"'}, 5, '"v"') is None
    assert "Content-Length is 4" in wrong_part({"Content-Range": "bytes 5-9/10", "Content-Length": "4"}, 5, '"v"')
    assert "9-5" in wrong_part({"Content-Range": "bytes 9-5/6"}, 9, '"v"')
    assert encodings_of({"Content-Encoding": "gzip, identity,BR ,"}) == ("gzip", "br")
    assert (weaken('"v"'), weaken('W/"v"'), weaken(None)) == ('W/"v"', 'W/"v"', None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b", "https://host/a/b"),
        ("https://me:pw@host:8/a", "https://***@host:8/a"),
        ("https://h/a?sig=abc&expires=5&flag#frag", "https://h/a?sig=***&expires=***&***#***"),
        ("https://h/a?sig=a?b=c&x=", "https://h/a?sig=***&x=***"),
        ("https://h/mail@me", "https://h/mail@me"),
        ("https://a@b@host/", "https://***@host/"),
        ("plain/key", "plain/key"),
        ("/path?token", "/path?***"),
        ("https://h?sig=a/b@c", "https://h?sig=***"),
    ],
)
def test_urls_are_shown_without_their_secrets(url, shown):
    assert redact_url(url) == shown


@given(st.text(alphabet="abc/?#@:&=%.", max_size=30), st.text(alphabet="abc:@%.", max_size=8))
def test_no_secret_survives_redaction_wherever_it_stands(tail, user):
    """In the userinfo, a query value, a query without a name, or the fragment: it is gone."""
    host = "https://host/"
    for url in (
        f"https://{user}SECRET@host/{tail}",
        f"{host}?{tail}=SECRET&{tail}",
        f"{host}?SECRET",
        f"{host}{tail}#SECRET",
    ):
        assert "SECRET" not in redact_url(url)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
def test_two_keys_never_share_a_url(keys):
    urls = []
    for key in keys:
        try:
            urls.append(join_url("https://host/base", key))
        except (NotFound, UnicodeEncodeError):
            return
    assert urls[0] != urls[1]
    assert all(url.startswith("https://host/base/") and "?" not in url and "#" not in url for url in urls)


def test_userinfo_and_fragment_are_not_part_of_what_is_asked_for():
    assert split_userinfo("http://me:p%40w@host:1/a?b=c@d#e") == ("http://host:1/a?b=c@d", "me:p@w")
    assert split_userinfo("http://host?x=me@y") == ("http://host?x=me@y", None)
    assert split_userinfo("http://host/me@there") == ("http://host/me@there", None)


@pytest.mark.parametrize("url", ["http://host/", "HTTPS://host:8443/a b", "http://[::1]:80/x", "http://me:pw@host/"])
def test_good_urls_have_no_problem(url):
    assert problem_of(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("host/x", "must start with"), ("ftp://host", "must start with"), ("http:///x", "no host"),
        ("http://[::1/x", "no valid URL"), ("http://h:port/", "no valid URL"), ("http://h:0/", "port 0"),
        ("http://h/\n", "control characters"), ("", "must start with"),
    ],
)  # fmt: skip
def test_bad_urls_are_told_why(url, why):
    assert why in problem_of(url)


def test_a_key_that_is_a_url_is_shown_without_its_secrets_in_every_message():
    """Errors and logs of all rooms show keys by `shorten`."""
    assert shorten("https://me:pw@host/a?sig=abc") == "'https://***@host/a?sig=***'"
    assert shorten("what?/is=this") == "'what?/is=this'"
    assert "SECRET" not in shorten("https://host/" + "x" * 200 + "?sig=SECRET")
