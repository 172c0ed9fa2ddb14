"""What register takes beside the fields that it has always had."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from btrdbextras.eventproc import register

HOOK, MAIL = "ctingress.on_complete", "alice@example.com"


def count(**kwargs: Any) -> str:
    return str(len(kwargs))


def test_options_reach_the_platform_as_its_words_have_them(conn: Any, platform: Any) -> None:
    register(
        conn, "count", HOOK, MAIL, MAIL, requirements=["pyarrow>=14", "scikit-learn[x]==1.*; python_version > '3.7'"],
        timeout="15m", memory="2 GiB", max_concurrency=3, retries=2, retry_delay=datetime.timedelta(minutes=1),
        notify="failures", description="counts",
    )(count)  # fmt: skip

    sent = platform.asked[0].registration
    assert list(sent.requirements) == ["pyarrow>=14", "scikit-learn[x]==1.*; python_version > '3.7'"]
    assert (sent.options.timeout_s, sent.options.memory_bytes, sent.options.max_concurrency) == (900, 2 << 30, 3)
    assert (sent.options.retries, sent.options.retry_delay_s) == (2, 60)
    assert (sent.options.notify, sent.options.description) == ("failures", "counts")


def test_without_options_the_registration_is_what_it_always_was(conn: Any, platform: Any) -> None:
    register(conn, "count", HOOK, MAIL, MAIL)(count)

    assert not platform.asked[0].registration.HasField("options")


def test_a_platform_that_knows_no_options_is_told_of(
    conn: Any, platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register(conn, "count", HOOK, MAIL, MAIL, timeout=60, requirements=["pyarrow"])(count)

    assert "does not know of: timeout, requirements" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"timeout": "soon"}, "timeout 'soon' should be seconds, or text like '90s'"),
        ({"timeout": 0}, "timeout is 0; leave it out"),
        ({"timeout": -1}, "timeout -1 should not be negative"),
        ({"timeout": True}, "timeout should be seconds"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"memory": "lots"}, "memory 'lots' should be bytes, or text like '512 MiB'"),
        ({"memory": 0.5}, "memory should be bytes as an int"),
        ({"max_concurrency": 0}, "max_concurrency is 0; it should be 1 or more"),
        ({"max_concurrency": "3"}, "max_concurrency should be an int"),
        ({"timeout": 10**400}, "timeout 10+... should not be negative, and end some time"),
        ({"memory": 2**63}, f"memory should be at most {2**63 - 1} bytes"),
        ({"retries": 2**31}, r"retries is 2147483648; it should be 0 or more, and less than 2\*\*31"),
        ({"max_concurrency": 2**31}, r"max_concurrency is 2147483648; it should be 1 or more, and less than 2\*\*31"),
        ({"retries": -1}, "retries is -1; it should be 0 or more"),
        ({"retries": 1.5}, "retries should be an int"),
        ({"retry_delay": 5}, "retries asks for none"),
        ({"notify": "never"}, "notify 'never' should be 'each'"),
        ({"notify": ["each"]}, "notify .* should be 'each'"),
        ({"description": "x" * 2001}, "description has 2001 characters; it should have at most 2000"),
        ({"description": 3}, "description should be a str"),
        ({"requirements": "pyarrow"}, "requirements should be a list of str"),
        ({"requirements": [3]}, "requirements should be a list of str; one of them is a int"),
        ({"requirements": ["pyarrow @ https://example.com/x.whl"]}, "names an address"),
        ({"requirements": ["-r other.txt"]}, "should be a package's name"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(conn: Any, platform: Any, option: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        register(conn, "count", HOOK, MAIL, MAIL, **option)

    assert platform.asked == []
