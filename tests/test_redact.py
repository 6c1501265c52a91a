from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import redact as module
from jobhistory import redact_rules
from jobhistory.redact import DEEPEST, Redactor, redact_json
from jobhistory.redact_rules import MASK
from tests.harmless_corpus import HELD_OUT_PLAIN, PLAIN
from tests.leaks_corpus import HELD_OUT_LEAKS, LEAKS
from tests.secrets_corpus import Leak, draw

redact = Redactor()

LEAK_SEED = 20240315
CASES = list(draw(LEAKS + HELD_OUT_LEAKS, seed=LEAK_SEED, times=2))
HARMLESS = list(draw(PLAIN + HELD_OUT_PLAIN, seed=LEAK_SEED, times=1))

# What expressions and texts are made of where secrets stand: pieces that begin, end, quote and separate.
PIECES = st.sampled_from(
    [
        *(
            "password",
            "token",
            "api_key",
            "key",
            "code",
            "auth",
            "pass",
            "pwd",
            "name",
            "value",
            "secret",
            "user",
            "login",
        ),
        *(
            "Authorization",
            "Cookie",
            "Bearer",
            "Basic",
            "eyJ",
            "ghp_",
            "sk-",
            "AKIA",
            "1234567890abcdef",
            "hunter2",
            "aZ3",
        ),
        *(
            "is",
            "A",
            "1",
            "x" * 20,
            "\ud800",
            "\u0130",
            "\0",
            "\n",
            " ",
            "=",
            ":",
            ",",
            '"',
            "'",
            "\\",
            "://",
            "@",
            "/",
        ),
        *(
            "?",
            "&",
            ";",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "<",
            ">",
            "--",
            "-u",
            "=>",
            "%3D",
            "\\n",
            "auth=(",
            "string(3) ",
        ),
        *("-----BEGIN PRIVATE KEY-----", "-----END", "[redacted]", "[redac", "redacted]"),
    ],
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join))


def remains(secret: str, text: str) -> bool:
    """Whether a secret, or any eight characters of it, can still be read."""
    return any(secret[at : at + 8] in text for at in range(max(1, len(secret) - 7)))


def test_the_corpus_is_of_the_size_the_claims_are_made_for() -> None:
    assert len({secret for case in CASES for secret in case.secrets}) >= 300
    assert len({case.text for case in HARMLESS}) >= 300
    assert 4 * len(HELD_OUT_LEAKS) >= len(LEAKS + HELD_OUT_LEAKS)
    assert 3 * len(HELD_OUT_PLAIN) >= len(PLAIN + HELD_OUT_PLAIN)


def test_no_secret_of_the_corpus_can_be_read_afterwards() -> None:
    redacted = {case.name: redact(case.text) for case in CASES}
    missed = {
        case.name: text for case in CASES for text in [redacted[case.name]] for s in case.secrets if remains(s, text)
    }
    assert {} == missed


def test_no_harmless_text_of_the_corpus_is_touched() -> None:
    assert {} == {case.name: redact(case.text) for case in HARMLESS if redact(case.text) != case.text}


@pytest.fixture
def fresh_rules() -> Iterator[None]:
    redact_rules.rules.cache_clear()
    yield
    redact_rules.rules.cache_clear()


@pytest.mark.usefixtures("fresh_rules")
@pytest.mark.parametrize("part", ["_SHAPES", "_INNER_SHAPES", "_PHRASES", "_NAMED", "_HEADER", "_URL", "_PEM"])
def test_the_corpus_notices_when_a_part_of_the_rules_is_gone(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never = "(?!)(?P<head>)(?P<secret>)"
    monkeypatch.setattr(redact_rules, part, never if isinstance(getattr(redact_rules, part), str) else ())
    assert [] != [case.name for case in CASES for secret in case.secrets if remains(secret, redact(case.text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("could not reach postgresql://app:hunter2@db:5432/x", "could not reach postgresql://app:[redacted]@db:5432/x"),
        ("redis://:hunter2@cache:6379/0 refused", "redis://:[redacted]@cache:6379/0 refused"),
        ("mysql://app:p@ss/w#rd@db.internal/x", "mysql://app:[redacted]@db.internal/x"),
        ("https://u:hunter2@h/x and https://v:hunter3@h/y", "https://u:[redacted]@h/x and https://v:[redacted]@h/y"),
        ("https://abcdefghij1234567890@github.com/a", "https://[redacted]@github.com/a"),
        ("https://abcdefghij1234567890:x1y2@github.com/a", "https://[redacted]:[redacted]@github.com/a"),
        ("amqp://u:hunter2@a,amqp://u:hunter3@b", "amqp://u:[redacted]@a,amqp://u:[redacted]@b"),
        ("host=db password=hunter2 dbname=x", "host=db password=[redacted] dbname=x"),
        ("Uid=app;Pwd=hunter2;Encrypt=yes", "Uid=app;Pwd=[redacted];Encrypt=yes"),
        ("GET /v1?token=abc123&page=2 failed", "GET /v1?token=[redacted]&page=2 failed"),
        ("Authorization: Bearer abc.def was refused", "Authorization: Bearer [redacted] was refused"),
        ("Cookie: a=b; c=d\nHost: x", "Cookie: [redacted]\nHost: x"),
        ("{'Authorization': 'Basic YTpi', 'Accept': '*/*'}", "{'Authorization': 'Basic [redacted]', 'Accept': '*/*'}"),
        ('{"password": "a\\"b", "user": "bob"}', '{"password": "[redacted]", "user": "bob"}'),
        ('"{\\"password\\": \\"abc\\", \\"user\\": 1}"', '"{\\"password\\": \\"[redacted]\\", \\"user\\": 1}"'),
        (
            "Settings(key=SecretStr('x1'), token=SecretStr('x1y'))",
            "Settings(key=SecretStr('x1'), token=SecretStr('[redacted]'))",
        ),
        (r'{"said": "\"AUTH\" \"default\" \"x1y2z3\""}', r'{"said": "\"AUTH\" \"default\" \"[redacted]\""}'),
        (r"[\"password\"]=>\n  string(5) \"x1y2z\"", r"[\"password\"]=>\n  string(5) \"[redacted]\""),
        ("mysqldump --password=hunter2 shop", "mysqldump --password=[redacted] shop"),
        ("['psql', '--password', 'hunter2']", "['psql', '--password', '[redacted]']"),
        ("curl -u bob:hunter2 https://x", "curl -u bob:[redacted] https://x"),
        ("<Password>hunter2</Password>", "<Password>[redacted]</Password>"),
        ("Invalid API key: a1b2c3d4", "Invalid API key: [redacted]"),
        ("password=hunter2", "password=[redacted]"),
        ("password=[redacted]rest", "password=[redacted]"),
        ("PWD=hunter2;", "PWD=[redacted];"),
        ("http://u:hunter2@host/@bob", "http://u:[redacted]@host/@bob"),
        ("token='[redacted]', api_key=[redacted]", "token='[redacted]', api_key=[redacted]"),
        ("Authorization: [redacted]", "Authorization: [redacted]"),
    ],
)
def test_only_the_secret_goes_and_the_rest_can_be_read(text: str, expected: str) -> None:
    assert expected == redact(text)


@pytest.mark.parametrize(
    "secret",
    [
        "A3-" + "ABC123-DEF45678901-AAAA1-BBBB2-CCCC3",
        "AKCp" + "a1B2c3D4e5" * 7,
        "CLOJARS_" + "0123456789" * 6,
        "cmVmd" + "a1B2c3D4e5" * 6,
        "LTAI" + "a1B2c3D4e5" * 2,
        "ops_eyJ" + "a1B2c3D4e5" * 30,
        "p8e-" + "a1b2c3d4" * 4,
    ],
)
def test_a_secret_known_by_its_issuers_prefix_needs_no_name(secret: str) -> None:
    assert "it said [redacted], no" == redact(f"it said {secret}, no")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://db:5432/x?contact=a@b.example",
        "https://example.com/@bob",
        "http://[::1]:80/@x",
        "redis://:***@cache",
        "cookie: none",
        "--password PASSWORD",
        "-u 1000:1000",
        "--token --verbose",
        "<a token>abc1234 b",
        "the token>abc1234</a>",
        "token={abc:1234}",
        "Cookie: http.cookies1",
        "PASS: test_one1",
        "pass=12345678",
        "PWD=/home/bob",
        "token=abc",
        "password=db_password",
        "password=str",
        "password=ab",
        "a:token:abc1234",
        "get_token('abc1234')",
        'token=get("abc1234")',
        "secret 'abcdefgh12345678'",
        "signature=abc",
        "https://x/?code=short1",
        "key=abcdefgh12345678",
        "next_token=abcdefgh12345678",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert text == redact(text)


@given(TEXTS)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(text) == redact(redact(text))


@given(TEXTS, st.lists(TEXTS.filter(lambda secret: len(secret) >= 4) | st.just("redacted"), min_size=1, max_size=3))
def test_redacting_twice_is_redacting_once_whatever_is_registered(text: str, secrets: list[str]) -> None:
    redactor = Redactor(secrets)
    once = redactor(text + secrets[0] + text)
    assert once == redactor(once)


@pytest.mark.parametrize("case", [*CASES[::7], *HARMLESS[::7]], ids=lambda case: case.name)
def test_a_redacted_text_stays_as_it_is(case: Leak) -> None:
    assert redact(case.text) == redact(redact(case.text))


def test_a_text_that_does_not_settle_is_masked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 1)
    assert "harmless" == redact("harmless")
    assert MASK == redact("password=hunter2")


@given(st.text(alphabet=st.characters(), max_size=50))
def test_any_text_at_all_is_taken(text: str) -> None:
    assert str is type(redact(f"{text}password={text}://{text}:{text}@{text}"))


def test_letters_that_grow_in_lower_case_shift_nothing() -> None:
    assert "\u0130\u0130 password=[redacted], rest" == redact("\u0130\u0130 password=hunter2, rest")


HELD = 'pä"ss w/o+rd\\1'


@pytest.mark.parametrize(
    "spelling",
    [
        HELD,
        quote(HELD),
        quote(HELD, safe=""),
        json.dumps(HELD)[1:-1],
        json.dumps(HELD, ensure_ascii=False)[1:-1],
        repr(HELD)[1:-1],
    ],
)
def test_a_registered_secret_goes_in_every_spelling(spelling: str) -> None:
    assert f"it was {MASK}, they say" == Redactor([HELD])(f"it was {spelling}, they say")


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_registered_secret_goes_where_it_is_part_of_something_in_base64(
    before: str,
    encode: Callable[[bytes], bytes],
) -> None:
    words = "sésame, öffne dich? ja!"
    encoded = encode(f"{before}:{words}\n".encode()).decode()
    redacted = Redactor([words])(f"sent {encoded}.")
    assert MASK in redacted
    assert not remains(encoded[len(before) + 8 : -8], redacted)


def test_the_longest_registered_secret_goes_first() -> None:
    assert f"{MASK}, {MASK}" == Redactor(["hunter", "hunter2hunter"])("hunter2hunter, hunter")


def test_a_registered_secret_leaves_the_mask_alone() -> None:
    assert f"{MASK} {MASK} x" == Redactor(["redacted", "dact", "[red"])(f"{MASK} redacted x")


def test_a_lone_surrogate_can_be_registered() -> None:
    assert MASK == Redactor(["\ud800abc"])("\ud800abc")


def test_a_redactor_never_shows_its_secrets() -> None:
    assert "Redactor()" == repr(Redactor(["hunter2"]))


def test_redactors_are_values() -> None:
    assert Redactor(["hunter2"]) == Redactor(("hunter2",))
    assert MASK == pickle.loads(pickle.dumps(Redactor(["hunter2"])))("hunter2")  # noqa: S301  it is our own
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Redactor().secrets = ()  # type: ignore[misc]


@pytest.mark.parametrize("secrets", [["abc"], [""], "abc"])
def test_a_secret_that_would_mask_ordinary_text_is_refused(secrets: Iterable[str]) -> None:
    with pytest.raises(ValueError, match="secret 1 has fewer than 4 characters: it would mask ordinary text"):
        Redactor(secrets)


def test_a_secret_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="secret 2 is a NoneType: register a list of str"):
        Redactor(["hunter2", None])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"password": "hunter"}, {"password": MASK}),
        ({"password": 5, "x": [{"client_secret": {"a": 1}}]}, {"password": MASK, "x": [{"client_secret": MASK}]}),
        ({"dbPassword": ["a", "b"], "API-Key": 1.5}, {"dbPassword": MASK, "API-Key": MASK}),
        ({"Authorization": "anything", "set-cookie": "a=b"}, {"Authorization": MASK, "set-cookie": MASK}),
        ({"token": {"value": "abc"}}, {"token": MASK}),
        ({"name": "DB_PASSWORD", "value": "x1y"}, {"name": "DB_PASSWORD", "value": MASK}),
        ({"key": "api_key", "value": 7}, {"key": "api_key", "value": MASK}),
        ({"signature": "a1b2c3d4e5f6a7b8"}, {"signature": MASK}),
        (["at postgresql://u:hunter2@h/x"], ["at postgresql://u:[redacted]@h/x"]),
        ({"note password=hunter2": 1}, {"note password=[redacted]": 1}),
        ("password=hunter2", "password=[redacted]"),
    ],
)
def test_secrets_in_json_go_whole(value: object, expected: object) -> None:
    assert expected == redact_json(value, redact)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        0.5,
        "text",
        [],
        {},
        {"password": None, "token": True, "secret": False, "api_key": []},
        {"password": ["This field is required."], "token": "is expired"},
        {
            "token_count": 5,
            "tokens": 5,
            "max_tokens": 5,
            "total_tokens": 5,
            "tokenizer": "gpt2",
            "token_type": "Bearer",
        },
        {"page_token": "CAUQAA", "nextPageToken": "CAUQAA", "continuation_token": "abc", "sync_token": "abc"},
        {
            "primary_key": "id",
            "partition_key": "p1",
            "sort_key": 3,
            "cache_key": "a",
            "key": "abc",
            "keyboard": "qwerty",
        },
        {"author": "bob", "authority": "x", "auth": {"type": "oauth2"}, "signature": "short", "code": 500},
        {"session": {"id": 7}, "session_id": 8, "secretary": "Ann", "passed": 3, "bypass": "yes"},
        {"name": "DB_HOST", "value": "db"},
        {"name": 7, "value": "db"},
    ],
)
def test_json_without_secrets_stays(value: object) -> None:
    assert value == redact_json(value, redact)


def test_redacting_json_leaves_its_argument_alone() -> None:
    value = {"a": [{"password": "hunter2"}]}
    redact_json(value, redact)
    assert {"a": [{"password": "hunter2"}]} == value


def test_keys_that_become_one_are_all_kept() -> None:
    value = {"password=aaa1": 1, "password=aaa2": 2, "password=[redacted] (1)": 3, "x": 4}
    redacted = redact_json(value, redact)
    assert [1, 2, 3, 4] == list(redacted.values())
    assert redacted == redact_json(redacted, redact)


def test_json_deeper_than_can_be_walked_is_masked_there() -> None:
    value: Any = "hunter2"
    for _ in range(100_000):
        value = [value]
    redacted = redact_json(value, redact)
    for _ in range(DEEPEST):
        (redacted,) = redacted
    assert MASK == redacted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_redacting_json_twice_is_redacting_it_once(value: object) -> None:
    once = redact_json(value, redact)
    assert once == redact_json(once, redact)


@given(JSON)
def test_redacted_json_has_as_many_members_as_before(value: object) -> None:
    redacted = redact_json({"x": value}, redact)
    assert len(value) == len(redacted["x"]) if isinstance(value, dict | list) else type(value) is type(redacted["x"])
