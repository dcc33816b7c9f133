"""plan and apply against a Metabase that keeps state, of the oldest and the newest version."""

from collections.abc import Callable

import pytest

from pulsewatch.metabase import provision
from pulsewatch.metabase.rest import Clock, MetabaseError
from pulsewatch.metabase.specs import Specs
from tests.metabase.conftest import Do, access_to, ignore, ours
from tests.metabase.contents import State
from tests.metabase.fake import EMAIL, PASSWORD, READER_PASSWORD, Fake, things
from tests.metabase.wire import NEWEST, OLDEST, Persona

pytestmark = [pytest.mark.any_postgresql, pytest.mark.unmeasured]


def changed_question(specs: Specs, key: str, **changes: object) -> Specs:
    questions = [
        question.model_copy(update=changes) if question.key == key else question for question in specs.questions
    ]
    return specs.model_copy(update={"questions": questions})


def cards_of(fake: Fake) -> dict[str, int]:
    """How many cards each of our dashboards has."""
    boards = {key: thing["id"] for key, thing in ours(fake).items() if thing in fake.state.dashboards.values()}
    return {key: len(fake.state.dashboards[number]["dashcards"]) for key, number in boards.items()}


# -- the first time ---------------------------------------------------------------------------------------------------


def test_a_new_metabase_is_set_up_connected_and_filled(fake: Fake, apply: Do, specs: Specs) -> None:
    lines = apply(fake)
    assert lines[0] == f"set up Metabase, with {EMAIL} as its administrator"
    assert fake.state.users == {EMAIL: PASSWORD}
    assert fake.state.settings["anon-tracking-enabled"] is False
    assert set(ours(fake)) == {"collection", *specs.keys()}
    assert cards_of(fake) == {wanted.key: len(wanted.cards) for wanted in specs.dashboards}
    assert fake.state.settings["custom-homepage-dashboard"] == ours(fake)["pipeline_health"]["id"]
    assert fake.state.settings["custom-homepage"] is True
    assert fake.state.sessions == {}


def test_the_database_is_connected_as_the_role_that_reads_and_shows_analytics_alone(fake: Fake, apply: Do) -> None:
    apply(fake, host="db.acme.test", port=6432, dbname="history", ssl=True)
    (base,) = fake.state.databases.values()
    assert base["details"] == {
        "host": "db.acme.test",
        "port": 6432,
        "dbname": "history",
        "user": "pulsewatch_metabase",
        "password": READER_PASSWORD,
        "ssl": True,
        "ssl-mode": "require",
        "tunnel-enabled": False,
        "schema-filters-type": "inclusion",
        "schema-filters-patterns": "analytics",
        "advanced-options": True,
        "json-unfolding": False,
        "let-user-control-scheduling": True,
        "additional-options": "ApplicationName=metabase",
    }


def test_every_table_and_column_is_described_and_keys_lead_to_their_targets(
    fake: Fake, apply: Do, specs: Specs
) -> None:
    apply(fake)
    tables = {table["id"]: table for table in fake.state.tables.values()}
    named = {f"{tables[each['table_id']]['name']}.{each['name']}": each for each in fake.state.fields.values()}
    for name, found in named.items():
        assert found["description"] == specs.descriptions[name]
    assert named["runs.run_id"]["semantic_type"] == "type/PK"
    assert named["slots.run_id"]["fk_target_field_id"] == named["runs.run_id"]["id"]
    assert named["runs.client_id"]["fk_target_field_id"] == named["clients.client_id"]["id"]
    assert {table["name"]: table["description"] for table in tables.values()} == {
        view: specs.descriptions[view] for view in specs.views()
    }


@pytest.mark.database
def test_every_question_answers_and_every_filter_has_its_values(filled: Fake, specs: Specs, clock: Clock) -> None:
    outcomes = provision.check(access_to(filled), specs, ignore, clock=clock)
    assert [outcome for outcome in outcomes if outcome.trouble is not None] == []
    assert len(outcomes) == len(specs.questions) + 2 + 4 + 3


# -- again ------------------------------------------------------------------------------------------------------------


def test_a_second_apply_writes_nothing(filled: Fake, apply: Do, plan: Do) -> None:
    before = len(filled.writes)
    assert plan(filled) == []
    assert apply(filled) == []
    assert filled.writes[before:] == []


def test_force_writes_everything_again_and_doubles_nothing(new_filled: Fake, apply: Do, specs: Specs) -> None:
    ids = {key: thing["id"] for key, thing in ours(new_filled).items()}
    dashcards = [dashcard["id"] for dashcard in next(iter(new_filled.state.dashboards.values()))["dashcards"]]
    lines = apply(new_filled, is_forced=True)
    assert len(lines) == 1 + len(specs.questions) + len(specs.dashboards)
    assert {key: thing["id"] for key, thing in ours(new_filled).items()} == ids
    assert [each["id"] for each in next(iter(new_filled.state.dashboards.values()))["dashcards"]] == dashcards


# Every kind of write breaks off once: columns and questions, of which there are many, somewhere in the middle. What
# comes after the columns is tried where they are described already.
FIRST_WRITES = [0, 1, 2, 3, 4, 40]
LAST_WRITES = [-27, -26, *range(-8, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("persona", [OLDEST, NEWEST], ids=lambda persona: persona.tag)
@pytest.mark.parametrize("place", [*FIRST_WRITES, *LAST_WRITES])
def test_a_break_after_any_write_is_made_good_by_the_next_apply(
    persona: Persona,
    place: int,
    dsn: str,
    reader_dsn: str,
    kept_after_apply: Callable[[Persona], State],
    apply: Do,
    specs: Specs,
) -> None:
    with Fake(dsn, reader_dsn, persona) as fake:
        fake.breaks_after_writes = place + 1
        if place < 0:
            fake.state = kept_after_apply(persona)
            for kept in (fake.state.collections, fake.state.cards, fake.state.dashboards, fake.state.settings):
                kept.clear()
            # The collection, its contents, each dashboard once more to be filled, the homepage.
            fake.breaks_after_writes += 1 + len(specs.questions) + 2 * len(specs.dashboards) + 2
        with pytest.raises(MetabaseError):
            apply(fake)
        fake.breaks_after_writes = None
        apply(fake)
        assert set(ours(fake)) == {"collection", *specs.keys()}
        assert cards_of(fake) == {wanted.key: len(wanted.cards) for wanted in specs.dashboards}
        assert len(fake.state.databases) == 1
        before = len(fake.writes)
        assert apply(fake) == []
        assert fake.writes[before:] == []
        assert fake.faults == []


def test_a_plan_writes_nothing_and_tells_what_apply_then_does(fake: Fake, apply: Do, plan: Do) -> None:
    planned = plan(fake)
    assert fake.writes == []
    assert fake.state.users == {}
    done = apply(fake)
    created = [line for line in planned if line.startswith("create ")]
    assert created == [line for line in done if line.startswith("create ")]
    assert planned[:2] == done[:2]


def test_a_plan_for_a_database_that_is_not_connected_writes_nothing(fake: Fake, plan: Do, specs: Specs) -> None:
    fake.set_up()
    lines = plan(fake)
    assert lines[0] == "connect the database as pulsewatch_metabase"
    assert len([line for line in lines if line.startswith("create ")]) == 1 + len(specs.keys())
    assert fake.writes == []


# -- what people do ---------------------------------------------------------------------------------------------------


def test_what_people_made_is_left_alone(new_filled: Fake, apply: Do) -> None:
    collection = ours(new_filled)["collection"]["id"]
    query = next(iter(new_filled.state.cards.values()))["dataset_query"]
    of_a_person = {
        "id": 5001, "name": "Runs", "description": "mine", "type": "question", "display": "table",
        "collection_id": collection, "archived": False, "dataset_query": query,
    }  # fmt: skip
    new_filled.state.cards[5001] = dict(of_a_person)
    board = {"id": 5002, "name": "Pipeline health", "collection_id": collection, "archived": False, "dashcards": []}
    new_filled.state.dashboards[5002] = dict(board)
    before = len(new_filled.writes)
    assert apply(new_filled) == []
    apply(new_filled, is_forced=True)
    assert new_filled.state.cards[5001] == of_a_person
    assert new_filled.state.dashboards[5002] == board
    assert [write for write in new_filled.writes[before:] if write.endswith(("/5001", "/5002"))] == []


def test_what_people_renamed_or_moved_within_the_collection_is_found_again(
    new_filled: Fake, apply: Do, specs: Specs
) -> None:
    found = ours(new_filled)
    found["collection"]["name"] = "Watch"
    folder = {"id": 5003, "name": "Folder", "parent_id": found["collection"]["id"], "archived": False}
    new_filled.state.collections[5003] = folder
    found["failed_runs"] |= {"name": "What broke", "collection_id": 5003}
    assert apply(new_filled) == []
    apply(new_filled, specs=changed_question(specs, "failed_runs", limit=100))
    again = ours(new_filled)
    assert again["failed_runs"]["id"] == found["failed_runs"]["id"]
    assert again["failed_runs"]["name"] == "Failed runs, last 3 hours"


def test_what_was_put_into_the_trash_is_taken_out_again(filled: Fake, apply: Do) -> None:
    found = ours(filled)
    found["failed_runs"]["archived"] = True
    found["pipeline_health"]["archived"] = True
    lines = apply(filled)
    assert lines == ["update the question Failed runs, last 3 hours", "update the dashboard Pipeline health"]
    assert not ours(filled)["failed_runs"]["archived"]
    assert not ours(filled)["pipeline_health"]["archived"]


def test_a_homepage_that_a_person_has_chosen_stays(new_fake: Fake, apply: Do) -> None:
    new_fake.set_up()
    new_fake.state.settings |= {"custom-homepage": True, "custom-homepage-dashboard": 77}
    apply(new_fake)
    assert new_fake.state.settings["custom-homepage-dashboard"] == 77


def test_no_homepage_is_set_where_none_is_wanted(new_fake: Fake, apply: Do) -> None:
    apply(new_fake, is_homepage=False)
    assert "custom-homepage" not in new_fake.state.settings


def test_settings_that_the_environment_of_metabase_makes_are_accepted(new_fake: Fake, apply: Do, specs: Specs) -> None:
    new_fake.environment = {"anon-tracking-enabled", "custom-homepage-dashboard"}
    told: list[str] = []
    apply(new_fake, told.append)
    assert set(ours(new_fake)) == {"collection", *specs.keys()}
    assert [line for line in told if line.startswith("the homepage stays as it is: You cannot update")] != []


def test_a_collection_with_our_name_is_taken_over_and_a_personal_one_is_not(new_fake: Fake, apply: Do) -> None:
    new_fake.set_up()
    ordinary = {"name": "PulseWatch", "location": "/", "namespace": None, "archived": False, "description": None}
    new_fake.state.collections[1] = {**ordinary, "id": 1, "personal_owner_id": 1}
    new_fake.state.collections[2] = {**ordinary, "id": 2, "personal_owner_id": None}
    apply(new_fake)
    assert ours(new_fake)["collection"]["id"] == 2
    assert new_fake.state.collections[1]["description"] is None


# -- what changes -----------------------------------------------------------------------------------------------------


def test_a_changed_question_is_one_write(filled: Fake, apply: Do, plan: Do, specs: Specs) -> None:
    changed = changed_question(specs, "failed_runs", limit=100)
    before = len(filled.writes)
    assert plan(filled, specs=changed) == ["update the question Failed runs, last 3 hours"]
    apply(filled, specs=changed)
    number = ours(filled)["failed_runs"]["id"]
    assert filled.writes[before:] == [f"PUT /api/card/{number}"]


def test_a_question_that_is_gone_is_archived(new_filled: Fake, apply: Do, specs: Specs) -> None:
    fewer = specs.model_copy(
        update={"questions": [question for question in specs.questions if question.key != "retries_daily"]}
    )
    assert apply(new_filled, specs=fewer) == ["archive Retries over time"]
    assert ours(new_filled)["retries_daily"]["archived"]
    assert apply(new_filled, specs=fewer) == []
    assert apply(new_filled) == ["update the question Retries over time"]


def test_a_changed_address_and_a_changed_password_reach_metabase(new_filled: Fake, apply: Do) -> None:
    assert apply(new_filled, host="other") == ["connect the database anew as pulsewatch_metabase"]
    new_filled.reader_password = "another-one"
    # Metabase shows no password; that it cannot connect any more is what it shows.
    assert apply(new_filled, host="other", reader_password="another-one") == [
        "connect the database anew as pulsewatch_metabase"
    ]
    assert apply(new_filled, host="other", reader_password="another-one") == []
    assert len(new_filled.state.databases) == 1


def test_a_new_column_is_waited_for_and_described(new_fake: Fake, apply: Do) -> None:
    columns = new_fake.views["slots"]
    new_fake.views["slots"] = columns[:-1]
    new_fake.hidden_views = {"slots"}
    with pytest.raises(MetabaseError, match=r"does not see analytics\.slots\."):
        apply(new_fake, timeout_s=30.0)
    new_fake.hidden_views = set()
    with pytest.raises(MetabaseError, match=rf"does not see analytics\.slots\.{columns[-1][0]}\."):
        apply(new_fake, timeout_s=30.0)
    new_fake.views["slots"] = columns
    told: list[str] = []
    lines = apply(new_fake, told.append)
    assert lines[0] == "let Metabase read the schema analytics"
    assert "waiting for Metabase to read the schema analytics" in told


def test_people_find_everything_by_name(new_filled: Fake) -> None:
    names = list(things(new_filled))
    assert names[0] == "PulseWatch"
    assert names[-2:] == ["Alert quality", "Pipeline health"]
    assert len(names) == len(set(names))
