"""The real OpenLineage client against a real server process and PostgreSQL, and the storing of what it sends."""

import gzip
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import requests
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import (
    DatasetEvent,
    Job,
    JobEvent,
    OutputDataset,
    Run,
    RunEvent,
    RunState,
    StaticDataset,
)
from openlineage.client.facet_v2 import (
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    ownership_job,
    parent_run,
    tags_job,
)
from psycopg.rows import dict_row

from pulsewatch.auth import Role
from pulsewatch.events import pipeline_slug
from tests.conftest import TEMPLATE, create_database, drop_database
from tests.intake import openlineage_payloads as payloads
from tests.serving import Relay, Server, make_key, serve

pytestmark = [pytest.mark.any_postgresql, pytest.mark.unmeasured]
PRODUCER = "https://example.org/etl/1.0"
SLUG = pipeline_slug("prod", "nightly.load_orders")
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)


class Site:
    """A server with its database."""

    def __init__(self, server: Server, dsn: str) -> None:
        self.url = server.url
        self.dsn = dsn

    def key(self, client: str | None, role: Role = Role.INGEST) -> str:
        return make_key(self.dsn, role, client)[1]["Authorization"].removeprefix("Bearer ")

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def runs(self, client: str) -> list[dict[str, Any]]:
        return self.rows(
            "select pipeline, external_id, status, started_at, finished_at, scheduled_at, message, error_class,"
            " parent_pipeline, is_assumed_utc from analytics.runs where client = %s order by first_at",
            client,
        )

    def count(self, client: str) -> int:
        """Stored events of a client."""
        query = (
            "select count(*) from pulsewatch.run_event inner join pulsewatch.client"
            " on run_event.client_id = client.id where slug = %s"
        )
        (row,) = self.rows(query, client)
        return int(row["count"])

    def post(self, client: str, events: object, path: str = "/api/v1/lineage") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key(client)}"}
        return httpx.post(f"{self.url}{path}", json=events, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def site(server: str) -> Iterator[Site]:
    name = "pulsewatch_openlineage"
    dsn = create_database(server, name, TEMPLATE)
    with serve(dsn, max_pipelines=20) as running:
        yield Site(running, dsn)
    drop_database(server, name)


def run_event(
    state: RunState, run_id: str, minutes: float, *, run_facets: Any = None, job_facets: Any = None, **fields: Any
) -> RunEvent:
    return RunEvent(
        eventType=state,
        eventTime=(START + timedelta(minutes=minutes)).isoformat(),
        run=Run(run_id, run_facets or {}),
        job=Job("prod", "nightly.load_orders", job_facets or {}),
        producer=PRODUCER,
        **fields,
    )


def whole_run(run_id: str) -> list[RunEvent]:
    """A run as a good producer tells it."""
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=1200, size=65536)
    return [
        run_event(
            RunState.START,
            run_id,
            0,
            run_facets={
                "nominalTime": nominal_time_run.NominalTimeRunFacet(START.isoformat()),
                "parent": parent_run.ParentRunFacet(
                    parent_run.Run(str(uuid4())), parent_run.Job("prod", "nightly"), root=None
                ),
            },
            job_facets={
                "jobType": job_type_job.JobTypeJobFacet("BATCH", "AIRFLOW", "TASK"),
                "ownership": ownership_job.OwnershipJobFacet([ownership_job.Owner("team:orders", "TEAM")]),
                "tags": tags_job.TagsJobFacet([tags_job.TagsJobFacetFields("tier", "gold", "USER")]),
            },
        ),
        run_event(
            RunState.COMPLETE,
            run_id,
            5,
            outputs=[OutputDataset("warehouse", "public.orders", outputFacets={"outputStatistics": statistics})],
        ),
    ]


def lineage_client(site: Site, key: str, kind: str = "http", **options: Any) -> OpenLineageClient:
    transport = {"type": kind, "url": site.url, "auth": {"type": "api_key", "apiKey": key}, "timeout": 30, **options}
    return OpenLineageClient(config={"transport": transport})


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("kind", ["http", "async_http"])
def test_the_client_tells_a_whole_run_over_each_of_its_transports(
    site: Site, kind: str, compression: str | None
) -> None:
    name, run_id = f"{kind}-{compression}", str(uuid4())
    client = lineage_client(site, site.key(name), kind, compression=compression)
    for event in whole_run(run_id):
        client.emit(event)
    assert client.close(timeout=30)
    if kind == "async_http":
        assert client.transport.get_stats() == {"pending": 0, "success": 2, "failed": 0}  # type: ignore[attr-defined]
    assert site.runs(name) == [
        {
            "pipeline": SLUG,
            "external_id": run_id,
            "status": "succeeded",
            "started_at": START,
            "finished_at": START + timedelta(minutes=5),
            "scheduled_at": START,
            "message": None,
            "error_class": None,
            "parent_pipeline": "nightly",
            "is_assumed_utc": False,
        }
    ]
    (pipeline,) = site.rows("select owner, tags, namespace, name from analytics.pipelines where client = %s", name)
    assert pipeline == {
        "owner": "team:orders",
        "tags": "tier:gold",
        "namespace": "prod",
        "name": "nightly.load_orders",
    }
    (run,) = site.rows(
        "select opening_attributes, winner_metrics from pulsewatch.run"
        " inner join pulsewatch.client on run.client_id = client.id where slug = %s",
        name,
    )
    assert run["winner_metrics"] == {"rows": 1200, "bytes": 65536}
    assert run["opening_attributes"]["integration"] == "AIRFLOW"


def test_the_client_finds_the_way_by_the_environment_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", site.url)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", site.key("by-environment"))
    client = OpenLineageClient()
    client.emit(whole_run(str(uuid4()))[0])
    client.close()
    assert [run["status"] for run in site.runs("by-environment")] == ["running"]


def test_a_key_of_all_clients_needs_the_client_in_the_url(site: Site) -> None:
    key, event = site.key(None), whole_run(str(uuid4()))[0]
    client = lineage_client(site, key)
    with pytest.raises(requests.HTTPError) as raised:
        client.emit(event)
    client.close()
    assert raised.value.response.status_code == 403
    assert "?client=SLUG" in raised.value.response.json()["detail"]
    client = lineage_client(site, key, endpoint="api/v1/lineage?client=by-url")
    client.emit(event)
    client.close()
    assert [run["status"] for run in site.runs("by-url")] == ["running"]


def test_the_answer_of_the_client_is_201_without_a_body(site: Site) -> None:
    client = lineage_client(site, site.key("answered"))
    response = client.transport.emit(whole_run(str(uuid4()))[0])
    client.close()
    assert (response.status_code, response.content) == (201, b"")


def test_job_and_dataset_events_of_the_client_are_taken(site: Site) -> None:
    client = lineage_client(site, site.key("catalog"))
    owners = ownership_job.OwnershipJobFacet([ownership_job.Owner("team:orders")])
    client.emit(JobEvent(eventTime=START.isoformat(), job=Job("prod", "j", {"ownership": owners}), producer=PRODUCER))
    client.emit(DatasetEvent(eventTime=START.isoformat(), dataset=StaticDataset("db", "orders"), producer=PRODUCER))
    client.close()
    pipelines = site.rows("select namespace, name, owner from analytics.pipelines where client = %s", "catalog")
    assert pipelines == [{"namespace": "prod", "name": "j", "owner": "team:orders"}]
    assert site.runs("catalog") == []


def test_a_failure_tells_message_and_class(site: Site) -> None:
    client = lineage_client(site, site.key("failing"))
    error = error_message_run.ErrorMessageRunFacet("KeyError: 'a\0b'", "python")
    client.emit(run_event(RunState.FAIL, str(uuid4()), 1, run_facets={"errorMessage": error}))
    client.close()
    (run,) = site.runs("failing")
    assert (run["status"], run["started_at"]) == ("failed", None)
    assert (run["message"], run["error_class"]) == ("KeyError: 'a\ufffdb'", "KeyError")


@pytest.mark.parametrize("kind", ["http", "async_http"])
def test_an_event_that_cannot_be_taken_is_refused_once_and_kept_as_a_reject(site: Site, kind: str) -> None:
    name = f"refused-{kind}"
    client = lineage_client(site, site.key(name), kind)
    tomorrow = run_event(RunState.START, str(uuid4()), 24 * 60 + 180)
    if kind == "http":
        with pytest.raises(requests.HTTPError) as raised:
            client.emit(tomorrow)
        assert raised.value.response.status_code == 400
        assert raised.value.response.json()["errors"][0]["code"] == "in_future"
    else:
        client.emit(tomorrow)
    client.close(timeout=30)
    rejects = site.rows(
        "select source, code, pointer from pulsewatch.ingest_reject as reject"
        " inner join pulsewatch.client on reject.client_id = client.id where slug = %s",
        name,
    )
    assert rejects == [{"source": "openlineage", "code": "in_future", "pointer": "/eventTime"}]


@pytest.mark.slow
def test_a_commit_whose_answer_is_lost_is_sent_again_by_the_client_and_stored_once(server: str) -> None:
    name = "pulsewatch_openlineage_cut"
    dsn = create_database(server, name, TEMPLATE)
    with Relay(dsn) as relay, serve(relay.dsn) as running:
        site = Site(running, dsn)
        client = lineage_client(site, site.key("cut"))
        event = whole_run(str(uuid4()))[0]
        client.emit(whole_run(str(uuid4()))[0])
        relay.withholds = True
        answers: list[Any] = []
        sending = threading.Thread(target=lambda: answers.append(client.transport.emit(event)))
        sending.start()
        assert relay.withheld.wait(30)
        relay.withholds = False
        relay.cut()
        relay.open()
        sending.join(60)
        client.close()
        assert [answer.status_code for answer in answers] == [201]
        # More than one where a connection of the pool turns out to be dead only when it is used.
        assert {retry.status for retry in answers[0].raw.retries.history} == {503}
        assert site.count("cut") == 2
    drop_database(server, name)


def test_the_whole_async_queue_of_a_dbt_run_arrives(site: Site) -> None:
    client = lineage_client(site, site.key("burst"), "async_http")
    run_ids = [str(uuid4()) for _ in range(100)]
    for run_id in run_ids:
        client.emit(run_event(RunState.START, run_id, 0))
        client.emit(run_event(RunState.FAIL, run_id, 1))
    assert client.close(timeout=60)
    assert {run["external_id"]: run["status"] for run in site.runs("burst")} == dict.fromkeys(run_ids, "failed")


# Storing, over plain HTTP


def at(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).isoformat()


def test_repeated_starts_of_spark_in_any_order_give_one_run(site: Site) -> None:
    events = [
        *[payloads.spark("START", at(0))] * 5,
        payloads.spark("START", at(0), inputs=[]),
        payloads.spark("OTHER", at(0)),
        payloads.spark("RUNNING", at(1)),
        *[payloads.spark("COMPLETE", at(2))] * 2,
    ]
    stored = []
    for name, order in (("spark-1", events), ("spark-2", events[::-1]), ("spark-3", events[4:] + events[:4])):
        assert [site.post(name, event).status_code for event in order] == [201] * len(events)
        assert site.count(name) == 5
        stored.append(site.runs(name))
    assert stored[0] == stored[1] == stored[2]
    (run,) = stored[0]
    assert (run["status"], run["started_at"], run["finished_at"]) == (
        "succeeded",
        START,
        START + timedelta(minutes=2),
    )


def test_events_of_airflow_and_dbt_are_stored(site: Site) -> None:
    shift = {"eventTime": at(0).removesuffix("+00:00")}
    events = [payloads.AIRFLOW_START | shift, payloads.AIRFLOW_FAIL | {"eventTime": at(7)}, payloads.DBT_ABORT | shift]
    assert site.post("golden", events, "/api/v1/lineage/batch").status_code == 204
    airflow, dbt = sorted(site.runs("golden"), key=lambda run: str(run["external_id"]))
    if airflow["external_id"] != payloads.TASK_RUN:
        airflow, dbt = dbt, airflow
    assert (airflow["status"], airflow["error_class"], airflow["is_assumed_utc"]) == (
        "failed",
        "psycopg.errors.UndefinedTable",
        True,
    )
    assert (dbt["status"], dbt["parent_pipeline"], dbt["is_assumed_utc"]) == ("cancelled", "dbt-run-shop", True)


def test_a_batch_stores_the_good_events_and_names_the_bad(site: Site) -> None:
    events = [payloads.minimal(eventTime=at(0)), payloads.minimal(eventTime=at(0), run={}), "no event"]
    response = site.post("mixed", events, "/api/v1/lineage/batch/")
    assert response.status_code == 200
    assert response.json()["summary"] == {
        "received": 3,
        "successful": 1,
        "failed": 2,
        "retriable": 0,
        "non_retriable": 2,
    }
    assert [failed["index"] for failed in response.json()["failed_events"]] == [1, 2]
    assert site.post("mixed", events, "/api/v1/lineage/").status_code == 200
    assert site.count("mixed") == 1


def test_an_event_beyond_the_limit_of_pipelines_fails_alone(site: Site) -> None:
    events = [
        payloads.minimal(eventTime=at(0), job={**payloads.AIRFLOW_START["job"], "name": f"p{number:02}"})
        for number in range(21)
    ]
    response = site.post("full", events, "/api/v1/lineage/batch")
    (failed,) = response.json()["failed_events"]
    assert failed["index"] == 20
    assert failed["reason"].startswith("pipeline_limit")


def test_an_event_of_a_megabyte_is_taken_plain_and_packed(site: Site) -> None:
    event = payloads.spark("START", at(0), plan_nodes=10_000)
    body = json.dumps(event).encode()
    assert len(body) > 1_000_000
    headers = {"Authorization": f"Bearer {site.key('large')}", "Content-Type": "application/json"}
    for packed, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
        sent = headers | {"Content-Encoding": encoding}
        assert httpx.post(f"{site.url}/api/v1/lineage", content=packed, headers=sent, timeout=30).status_code == 201
    assert site.count("large") == 1


@pytest.mark.parametrize("path", ["/api/v1/lineage", "/api/v1/lineage/", "/api/v1/lineage/batch"])
def test_without_a_key_the_answer_is_401_and_never_a_redirect(site: Site, path: str) -> None:
    assert httpx.post(f"{site.url}{path}", json=[]).status_code == 401
    assert httpx.get(f"{site.url}{path}").status_code == 405


def test_what_is_stored_is_counted_under_the_name_of_the_wire(site: Site) -> None:
    event = payloads.minimal(eventTime=at(0))
    assert [site.post("counted", event).status_code for _ in range(2)] == [201, 201]
    (counted,) = site.rows(
        "select sum(accepted) > 0 as has_accepted, sum(duplicates) > 0 as has_duplicates"
        " from pulsewatch.ingest_stat where source = 'openlineage'"
    )
    assert counted == {"has_accepted": True, "has_duplicates": True}
