"""What counts as an email address, and who may be written to."""

from __future__ import annotations

import pytest

from schemas.addresses import allowed, check_address


@pytest.mark.parametrize(
    "text",
    [
        "alice@example.com",
        "alice.o'neil+faults_7@grid-ops.example.com",
        "a@b",
        "alice@xn--bcher-kva.example.com",
        "a" * 64 + "@example.com",
    ],
)
def test_an_address_is_taken_as_it_is(text: str) -> None:
    assert check_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.com",
        "alice@",
        "alice@@example.com",
        "alice@example.com\n",
        "alice@example.com\r\nBcc: bob@example.com",
        "alice@example.com, bob@example.com",
        "Alice <alice@example.com>",
        " alice@example.com",
        "alice smith@example.com",
        '"alice"@example.com',
        "alice@[127.0.0.1]",
        "alice..b@example.com",
        ".alice@example.com",
        "alice@-example.com",
        "alice@example..com",
        "alice@ex\x00ample.com",
        "alicé@example.com",
        "a" * 65 + "@example.com",
        "alice@" + ".".join(["a" * 60] * 5),
    ],
)
def test_anything_else_is_refused_and_says_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"alice@example\.com|at most 254 characters") as raised:
        check_address(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("domains", "address", "may"),
    [
        ("", "alice@example.com", False),
        (" , ", "alice@example.com", False),
        ("*", "alice@example.com", True),
        ("example.com", "alice@example.com", True),
        ("example.com", "alice@EXAMPLE.com", True),
        ("Example.com", "alice@example.com", True),
        ("example.com", "alice@mail.example.com", False),
        ("example.com", "alice@badexample.com", False),
        ("*.example.com", "alice@mail.example.com", True),
        ("*.example.com", "alice@example.com", False),
        ("*.example.com", "alice@badexample.com", False),
        ("example.org, example.com", "alice@example.com", True),
        ("example.com", "example.com@example.org", False),
    ],
)
def test_only_domains_on_the_list_are_written_to(domains: str, address: str, may: bool) -> None:
    assert allowed(address, domains) is may
