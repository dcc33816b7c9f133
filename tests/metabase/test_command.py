"""`pulsewatch metabase` as a real process: exit codes, what it prints where, and no secrets."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.metabase.fake import EMAIL, PASSWORD, READER_PASSWORD, Fake
from tests.metabase.wire import NEWEST
from tests.running import ROOT, Command, run

pytestmark = [pytest.mark.any_postgresql, pytest.mark.slow]


@pytest.fixture(scope="module")
def site(dsn: str, reader_dsn: str) -> Iterator[Fake]:
    with Fake(dsn, reader_dsn, NEWEST) as fake:
        yield fake
    assert fake.faults == []


def metabase(site: Fake, *words: str, **changed: str) -> Command:
    settings = {
        "PULSEWATCH_METABASE_URL": site.url,
        "PULSEWATCH_METABASE_USER": EMAIL,
        "PULSEWATCH_METABASE_ADMIN_PASSWORD": PASSWORD,
        "PULSEWATCH_METABASE_PASSWORD": READER_PASSWORD,
    }
    done = run("metabase", *words, **(settings | changed))
    said = "".join(done.out + done.err)
    assert PASSWORD not in said
    assert READER_PASSWORD not in said
    return done


def test_plan_apply_plan_check(site: Fake) -> None:
    planned = metabase(site, "plan")
    assert planned.process.returncode == 2
    assert planned.out[0] == f"set up Metabase, with {EMAIL} as its administrator\n"
    assert planned.err == []
    assert site.writes == []

    applied = metabase(site, "apply")
    assert (applied.process.returncode, applied.out) == (0, [])
    assert "make Pipeline health the homepage\n" in applied.err
    assert applied.err[-1] == f"{len(applied.err) - 2} changes\n"

    again = metabase(site, "plan")
    assert (again.process.returncode, again.out, again.err) == (0, [], ["nothing to change\n"])

    checked = metabase(site, "check")
    assert checked.process.returncode == 0
    assert {line.split("\t")[0] for line in checked.out} == {"ok"}
    assert "ok\tSuccess rate over time\n" in checked.out


def test_check_ends_with_1_where_a_question_fails(site: Fake) -> None:
    for card in site.state.cards.values():
        card["archived"] = card["name"] == "Runs"
    checked = metabase(site, "check")
    assert checked.process.returncode == 1
    assert [line for line in checked.out if not line.startswith("ok\t")] == [
        "failed\tRuns\tit is not there; run `pulsewatch metabase apply`\n"
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"PULSEWATCH_METABASE_URL": ""}, "Error: set PULSEWATCH_METABASE_URL to the address of Metabase\n"),
        ({"PULSEWATCH_METABASE_URL": "localhost"}, "Error: PULSEWATCH_METABASE_URL: String should match pattern"),
        ({"PULSEWATCH_METABASE_ADMIN_PASSWORD": "wrong"}, f"Error: Metabase refuses {EMAIL} with this password"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(site: Fake, changed: dict[str, str], said: str) -> None:
    site.set_up()
    done = metabase(site, "apply", **changed)
    assert done.process.returncode == 1
    assert len(done.err) == 1
    assert done.err[0].startswith(said)


def test_the_script_in_the_folder_is_the_same_program() -> None:
    words = (sys.executable, ROOT / "metabase/provision.py", "--help")
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "Usage: provision.py" in done.stdout
    assert {"apply", "check", "plan"} <= set(done.stdout.split())
