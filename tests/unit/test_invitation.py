"""The code with which a trap joins a hub."""

import pytest

from trapsync.errors import SettingsError
from trapsync.net.invitation import Code, Terms

TERMS = Terms(keys=("ed25519:AAAA", "ed25519:BBBB"), groups=("valley",))


@pytest.mark.parametrize(
    "hub", ["https://hub.example.org", "http://10.0.0.1:8080", "https://example.org/traps"]
)
def test_a_code_is_read_as_it_was_written_and_as_people_type_it(hub: str) -> None:
    code = Code.new(f"{hub}/", TERMS)

    for typed in (
        str(code),
        f"  {code}\r\n",
        str(code).replace("-", ""),
        f"{hub}/join#{str(code)[-41:].lower()}",
    ):
        assert Code.parse(typed) == code
    assert code.fingerprint == TERMS.fingerprint()


@pytest.mark.parametrize(
    ("hub", "is_here"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("https://[::1]:1", True),
        ("https://hub.example.org", False),
        ("http://10.0.0.1:8080", False),
    ],
)
def test_a_code_that_leads_to_the_operators_own_computer_is_known(hub: str, is_here: bool) -> None:
    assert Code.new(hub, TERMS).leads_here is is_here


def test_no_two_codes_have_one_secret_and_none_is_shown_by_accident() -> None:
    codes = [Code.new("https://hub.example.org", TERMS) for _ in range(100)]

    assert len({code.secret for code in codes}) == 100
    assert not any(code.secret in repr(code) for code in codes)


def test_the_fingerprint_is_that_of_keys_groups_and_images_in_any_order() -> None:
    same = Terms(keys=("ed25519:BBBB", "ed25519:AAAA"), groups=("valley",))
    others = (
        Terms(keys=("ed25519:AAAA",), groups=("valley",)),
        Terms(keys=TERMS.keys, groups=("valley", "all")),
        Terms(keys=TERMS.keys, groups=()),
        Terms(keys=(), groups=("ed25519:AAAA", "ed25519:BBBB", "valley")),
        Terms(keys=TERMS.keys, groups=("valley",), images=False),
    )

    assert same.fingerprint() == TERMS.fingerprint()
    assert len({terms.fingerprint() for terms in (TERMS, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no code"),
        ("hub.example.org/join#AAAA", "no code"),
        ("https://hub.example.org/#AAAA", "no code"),
        ("ftp://hub.example.org/join#AAAA", "no code"),
        ("https://hub.example.org/join", "here are 0"),
        ("https://hub.example.org/join#ABCDEF-ABCDEF-ABCDEF-ABCDEF-ABCDEF-ABCDE", "here are 35"),
        ("https://hub.example.org/join#ABCDEF-ABCDEF-ABCDEF-ABCDEF-ABCDEF-ABCDE1", "A to Z, 2 to 7"),
        ("https://[::1/join#ABCDEF", "no code"),
    ],
)
def test_what_is_no_code_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Code.parse(text)

    assert "\n" not in str(refused.value)
