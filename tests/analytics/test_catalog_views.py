"""clients, pipelines, pipeline_tags, annotations, ingest_5m: rows given, rows expected."""

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, insert, pipeline, read, record, uuid


def test_clients_show_their_slug_where_no_title_is_given(acme: Acme) -> None:
    client(acme.connection, "zeta", archived_at=at(2))
    query = "select client, client_title, is_archived, archived_at from analytics.clients order by client"
    assert read(acme.connection, query) == [("acme", "Acme & Co", False, None), ("zeta", "zeta", True, at(2))]


def test_pipelines_name_themselves_and_their_client(acme: Acme) -> None:
    row = record(acme.connection, "select * from analytics.pipelines")
    wanted = {
        "client_id": acme.client_id,
        "pipeline_id": acme.pipeline_id,
        "client": "acme",
        "client_title": "Acme & Co",
        "pipeline": "nightly",
        "pipeline_title": "Nightly load",
        "name": "nightly",
        "namespace": "",
        "timezone": "UTC",
        "tags": "daily, etl",
        "owner": "data@acme.test",
        "environment": "prod",
        "is_archived": False,
    }
    assert {name: row[name] for name in wanted} == wanted


def test_a_pipeline_is_archived_where_its_client_is(acme: Acme) -> None:
    other = client(acme.connection, "zeta", archived_at=at(2))
    pipeline(acme.connection, other, "old")
    query = "select client, pipeline, is_archived from analytics.pipelines order by client"
    assert read(acme.connection, query) == [("acme", "nightly", False), ("zeta", "old", True)]


def test_pipeline_tags_have_a_row_per_tag(acme: Acme) -> None:
    pipeline(acme.connection, acme.client_id, "bare")
    pipeline(acme.connection, acme.client_id, "old", tags=["etl"], archived_at=at(2))
    query = (
        "select client, pipeline, pipeline_title, environment, owner, tag, is_archived from analytics.pipeline_tags"
        " order by pipeline, tag"
    )
    assert read(acme.connection, query) == [
        ("acme", "nightly", "Nightly load", "prod", "data@acme.test", "daily", False),
        ("acme", "nightly", "Nightly load", "prod", "data@acme.test", "etl", False),
        ("acme", "old", "old", None, None, "etl", True),
    ]


def test_client_id_tells_the_number_of_a_slug(acme: Acme) -> None:
    query = "select analytics.client_id('acme'), analytics.client_id('nobody'), analytics.client_id(null)"
    assert read(acme.connection, query) == [(acme.client_id, None, None)]


def test_annotations_are_about_a_pipeline_or_the_whole_client(acme: Acme) -> None:
    insert(
        acme.connection, "annotation", **acme.keys, id=uuid(1), at=at(1), kind="deploy", text="v2", url="https://x.test"
    )
    insert(
        acme.connection,
        "annotation",
        client_id=acme.client_id,
        id=uuid(2),
        at=at(2),
        until_at=at(3),
        kind="note",
        text="Holiday",
    )
    query = (
        "select client, pipeline_id, pipeline, annotation_id, at, until_at, kind, text, url from analytics.annotations"
        " order by at"
    )
    assert read(acme.connection, query) == [
        ("acme", acme.pipeline_id, "nightly", uuid(1), at(1), None, "deploy", "v2", "https://x.test"),
        ("acme", None, None, uuid(2), at(2), at(3), "note", "Holiday", None),
    ]


def test_ingest_5m_adds_up_its_writers(acme: Acme) -> None:
    for writer, accepted, lag_sum, lag_max in ((1, 3, 6.0, 4.0), (2, 1, 2.0, 2.0), (3, 0, 0.0, 0.0)):
        insert(
            acme.connection,
            "ingest_stat",
            bucket_at=at(1),
            source="native",
            writer=writer,
            accepted=accepted,
            duplicates=writer,
            rejected=1,
            lag_s_sum=lag_sum,
            lag_s_max=lag_max,
        )
    insert(acme.connection, "ingest_stat", bucket_at=at(1), source="openlineage", writer=1, rejected=5)
    # A producer whose clock is ahead: the lag of what came is below zero.
    insert(
        acme.connection,
        "ingest_stat",
        bucket_at=at(2),
        source="native",
        writer=1,
        accepted=2,
        lag_s_sum=-4.0,
        lag_s_max=-1.0,
    )
    query = "select * from analytics.ingest_5m order by bucket_at, source"
    assert read(acme.connection, query) == [
        (at(1), "native", 4, 6, 3, 2.0, 4.0),
        (at(1), "openlineage", 0, 0, 5, None, None),
        (at(2), "native", 2, 0, 0, -2.0, -1.0),
    ]
