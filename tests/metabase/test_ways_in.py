"""How it gets into a Metabase, what it says where it does not, and what check finds there."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from pulsewatch.metabase import provision
from pulsewatch.metabase.rest import Clock, MetabaseError
from pulsewatch.metabase.server import Access
from pulsewatch.metabase.specs import Specs
from tests.metabase.conftest import Do, access_to, ignore, ours
from tests.metabase.fake import API_KEY, EMAIL, PASSWORD, READER_PASSWORD, Fake
from tests.metabase.wire import NEWEST, Persona

pytestmark = pytest.mark.any_postgresql


def test_a_key_is_used_where_one_is_given(fake: Fake, apply: Do) -> None:
    fake.set_up()
    apply(fake, email=None, password=None, api_key=API_KEY)
    assert fake.state.sessions == {}
    assert [request.path for request in fake.requests if "session" in request.path] == ["/api/session/properties"]


@pytest.mark.unmeasured
def test_a_metabase_that_starts_is_waited_for(new_fake: Fake, apply: Do) -> None:
    new_fake.starting = 60
    told: list[str] = []
    assert apply(new_fake, told.append) != []
    assert told[0] == f"waiting for Metabase at {new_fake.url}"
    assert told[1].startswith(f"waiting for Metabase at {new_fake.url}, ")


@pytest.mark.unmeasured
def test_short_troubles_pass(new_fake: Fake, apply: Do, specs: Specs) -> None:
    new_fake.troubles = [("GET /api/database$", 503), ("GET /api/database$", 503), ("PUT /api/field", 502)]
    new_fake.troubles += [("POST /api/card", 429), ("PUT /api/dashboard", 503)]
    apply(new_fake)
    assert new_fake.troubles == []
    assert set(ours(new_fake)) == {"collection", *specs.keys()}
    before = len(new_fake.writes)
    assert apply(new_fake) == []
    assert new_fake.writes[before:] == []


@pytest.mark.unmeasured
def test_what_makes_a_new_thing_is_not_sent_twice(new_fake: Fake, apply: Do) -> None:
    new_fake.troubles = [("POST /api/card$", 502)]
    with pytest.raises(MetabaseError, match="refuses POST /api/card"):
        apply(new_fake)


@pytest.mark.unmeasured
def test_a_session_that_ends_on_the_way_is_told_and_made_good(new_fake: Fake, apply: Do) -> None:
    new_fake.troubles = [("POST /api/dashboard", 401)]
    with pytest.raises(MetabaseError, match="refuses POST /api/dashboard"):
        apply(new_fake)
    assert apply(new_fake)[0] == "create the dashboard Pipeline health"


@pytest.mark.unmeasured
def test_a_setup_that_another_was_faster_with_goes_on_with_a_login(new_fake: Fake, apply: Do, specs: Specs) -> None:
    new_fake.state.users[EMAIL] = PASSWORD
    new_fake.state.administrators.add(EMAIL)
    new_fake.says_it_needs_setup = True
    apply(new_fake)
    assert set(ours(new_fake)) == {"collection", *specs.keys()}


def spoil(fake: Fake, **changed: Any) -> None:
    for name, value in changed.items():
        setattr(fake, name, value)


def persona(tag: str) -> Persona:
    return dataclasses.replace(NEWEST, tag=tag)


def as_it_is(_: Fake) -> None:
    """Nothing is changed before."""


ERRORS: list[tuple[Callable[[Fake], None], dict[str, object], str]] = [
    (Fake.set_up, {"password": "wrong"}, rf"refuses {EMAIL} with this password .*PULSEWATCH_METABASE_ADMIN_PASSWORD"),
    (Fake.set_up, {"email": None}, "set PULSEWATCH_METABASE_API_KEY, or PULSEWATCH_METABASE_USER"),
    (Fake.set_up, {"api_key": "mb_wrong"}, "Metabase refuses PULSEWATCH_METABASE_API_KEY"),
    (as_it_is, {"password": "short"}, r"\(400\): password: password is too common"),
    (as_it_is, {"reader_password": "wrong"}, "as pulsewatch_metabase: password: FATAL: password authent"),
    (as_it_is, {"reader_password": None}, "set PULSEWATCH_METABASE_PASSWORD to the password of the role"),
    (lambda fake: spoil(fake, hidden_views={"runs", "slots"}), {}, r"does not see analytics\.runs, analytics\.slots\."),
    (lambda fake: spoil(fake, persona=persona("v0.57.9")), {}, r"Metabase v0\.57\.9 is too old; .* 0\.58 or later"),
    (lambda fake: spoil(fake, starting=10**9), {}, r"no Metabase is ready at .* after 300 s: .*503"),
]


@pytest.mark.parametrize(("before", "changed", "said"), ERRORS, ids=[said for *_, said in ERRORS])
def test_an_error_says_what_is_wrong_and_no_secret(
    new_fake: Fake, apply: Do, before: Callable[[Fake], None], changed: dict[str, object], said: str
) -> None:
    before(new_fake)
    with pytest.raises(MetabaseError, match=said) as raised:
        apply(new_fake, **changed)
    secrets = [PASSWORD, READER_PASSWORD, API_KEY]
    assert [secret for secret in secrets if secret in str(raised.value)] == []
    assert "\n" not in str(raised.value)


def test_a_user_who_is_no_administrator_is_told(new_fake: Fake, apply: Do) -> None:
    new_fake.set_up()
    new_fake.state.administrators.clear()
    with pytest.raises(MetabaseError, match=f"{EMAIL} is no administrator of Metabase"):
        apply(new_fake)


@pytest.mark.parametrize("tag", ["vUNKNOWN", "v1.63.2", "v0.58.0"])
def test_newer_and_paid_versions_are_taken(new_fake: Fake, plan: Do, tag: str) -> None:
    new_fake.persona = persona(tag)
    assert plan(new_fake) != []


def test_nobody_at_the_address_is_told(specs: Specs, clock: Clock) -> None:
    access = Access(url="http://127.0.0.1:9", email=EMAIL, password=PASSWORD, timeout_s=20)
    with pytest.raises(MetabaseError, match=r"no Metabase is ready at http://127\.0\.0\.1:9 after 20 s: .*refused"):
        provision.plan(access, specs, ignore, clock=clock)


def test_no_secret_is_told_on_the_way_or_shown_by_access(new_fake: Fake, apply: Do) -> None:
    told: list[str] = []
    apply(new_fake, told.append)
    said = "\n".join(told) + repr(access_to(new_fake, api_key=API_KEY))
    assert [secret for secret in (PASSWORD, READER_PASSWORD, API_KEY) if secret in said] == []


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_names_what_is_missing_changed_or_fails(new_filled: Fake, specs: Specs, clock: Clock) -> None:
    found = ours(new_filled)
    found["runs"]["archived"] = True
    stage = found["error_classes"]["dataset_query"]["stages"][0]
    stage["native"] = "select 1 / 0 [[, {{client}}]]"
    found["failing_now"]["dataset_query"]["stages"][0] = {"lib/type": "mbql.stage/native", "native": "{{a}}"} | {
        "template-tags": {"a": {"name": "a"}}
    }
    troubles = {
        outcome.name: outcome.trouble
        for outcome in provision.check(access_to(new_filled), specs, ignore, clock=clock)
        if outcome.trouble is not None
    }
    assert troubles == {
        "Runs": "it is not there; run `pulsewatch metabase apply`",
        "Top error classes, last 7 days": "division by zero",
        "Failing pipelines and since when": (
            "Metabase has stored the question Failing pipelines and since when otherwise than it was sent; "
            "is this version supported?"
        ),
    }


def test_check_of_a_metabase_that_was_never_set_up_says_so(new_fake: Fake, specs: Specs, clock: Clock) -> None:
    with pytest.raises(MetabaseError, match="never set up"):
        provision.check(access_to(new_fake), specs, ignore, clock=clock)
