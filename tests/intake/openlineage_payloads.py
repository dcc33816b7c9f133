"""Events as Airflow, dbt-ol and Spark write them, shortened; and how the tests have them read."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pulsewatch.auth import Caller, Role
from pulsewatch.events import RunEvent
from pulsewatch.intake.base import Limits, Request
from pulsewatch.intake.openlineage import OpenLineageWire
from pulsewatch.packing import content_digest
from pulsewatch.submissions import Submission

AIRFLOW_FACETS = "https://github.com/apache/airflow/tree/providers-openlineage/2.7.0"
SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"

DAG_RUN = "01990d4c-1a00-7a5e-b6b5-6f2e6b6f4c11"
TASK_RUN = "01990d4c-1a00-7f0d-8a34-91d6a1a7c2ee"


def facet(kind: str, /, **fields: Any) -> dict[str, Any]:
    """A facet with the two members that every facet carries."""
    return {"_producer": AIRFLOW_FACETS, "_schemaURL": f"{FACETS}/{kind}.json#/$defs/{kind}", **fields}


def _airflow(kind: str, at: str, **run_facets: Any) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": at,
        "producer": AIRFLOW_FACETS,
        "schemaURL": SPEC,
        "run": {
            "runId": TASK_RUN,
            "facets": {
                "nominalTime": facet(
                    "NominalTimeRunFacet",
                    nominalStartTime="2026-11-20T02:00:00+00:00",
                    nominalEndTime="2026-11-21T02:00:00+00:00",
                ),
                "parent": facet(
                    "ParentRunFacet",
                    run={"runId": DAG_RUN},
                    job={"namespace": "default", "name": "nightly"},
                    root={"run": {"runId": DAG_RUN}, "job": {"namespace": "default", "name": "nightly"}},
                ),
                "processing_engine": facet(
                    "ProcessingEngineRunFacet", version="3.1.0", name="Airflow", openlineageAdapterVersion="2.7.0"
                ),
                "airflow": {"dag": {"dag_id": "nightly", "timetable": {"expression": "0 2 * * *"}}, "dagUuid": None},
                **run_facets,
            },
        },
        "job": {
            "namespace": "default",
            "name": "nightly.load_orders",
            "facets": {
                "jobType": facet("JobTypeJobFacet", processingType="BATCH", integration="AIRFLOW", jobType="TASK"),
                "ownership": facet("OwnershipJobFacet", owners=[{"name": "orders", "type": None}, {"name": "data"}]),
                "tags": facet(
                    "TagsJobFacet",
                    tags=[
                        {"key": "finance", "value": "finance", "source": "AIRFLOW"},
                        {"key": "tier", "value": "gold", "source": "AIRFLOW"},
                    ],
                ),
                "documentation": facet("DocumentationJobFacet", description="Loads orders."),
            },
        },
        "inputs": [],
        "outputs": [],
    }


AIRFLOW_START = _airflow("START", "2026-11-21T02:00:03.120431+00:00")
AIRFLOW_FAIL = _airflow(
    "FAIL",
    "2026-11-21T02:07:41.5+00:00",
    errorMessage=facet(
        "ErrorMessageRunFacet",
        message="relation orders does not exist",
        programmingLanguage="python",
        stackTrace='Traceback (most recent call last):\n  File "/dags/load.py", line 12, in load\n    run(sql)\n'
        "psycopg.errors.UndefinedTable: relation orders does not exist\nLINE 1: select * from orders\n",
    ),
)

DBT_RUN = "01990d51-77aa-7b3c-9d0a-0c5ad1f0a7b2"


def dbt(kind: str, at: str, **members: Any) -> dict[str, Any]:
    """An event of dbt-ol for one model, with the schema address that older versions write."""
    return {
        "eventType": kind,
        "eventTime": at,
        "producer": "https://github.com/OpenLineage/OpenLineage/tree/1.40.0/integration/dbt",
        "schemaURL": "https://openlineage.io/spec/1-0-5/OpenLineage.json#/definitions/RunEvent",
        "run": {
            "runId": DBT_RUN,
            "facets": {
                "parentRun": {
                    "run": {"runId": DAG_RUN},
                    "job": {"namespace": "dbt", "name": "dbt-run-shop"},
                },
                "dbt_version": {"version": "1.10.2"},
            },
        },
        "job": {
            "namespace": "dbt",
            "name": "shop.analytics.shop.orders",
            "facets": {"jobType": {"processingType": "BATCH", "integration": "DBT", "jobType": "MODEL"}},
        },
        **members,
    }


DBT_COMPLETE = dbt(
    "COMPLETE",
    "2026-11-21T03:00:09.123456789Z",
    inputs=[
        {
            "namespace": "postgres://db:5432",
            "name": "shop.public.raw_orders",
            "inputFacets": {
                "dataQualityAssertions": {
                    "assertions": [
                        {"assertion": "not_null", "success": True, "column": "id"},
                        {"assertion": "unique", "success": False, "column": "id"},
                        {"assertion": "accepted_values", "success": False, "name": "known_status"},
                    ]
                }
            },
        }
    ],
    outputs=[
        {
            "namespace": "postgres://db:5432",
            "name": "shop.public.orders",
            "outputFacets": {"outputStatistics": {"rowCount": 1200}},
        }
    ],
)
# The abort of a whole command is written with the local clock and no zone.
DBT_ABORT = dbt("ABORT", "2026-11-21T03:00:09.500000")

SPARK_RUN = "01990d60-0000-7000-8000-5e6f7a8b9c0d"


def spark(kind: str, at: str, *, plan_nodes: int = 3, **members: Any) -> dict[str, Any]:
    """An event of the Spark listener with a logical plan of that many nodes."""
    node = {"class": "org.apache.spark.sql.execution.datasources.LogicalRelation", "num-children": 0, "output": []}
    return {
        "eventTime": at,
        "producer": "https://github.com/OpenLineage/OpenLineage/tree/1.40.0/integration/spark",
        "schemaURL": SPEC,
        "eventType": kind,
        "run": {
            "runId": SPARK_RUN,
            "facets": {
                "processing_engine": {"version": "3.5.1", "name": "spark", "openlineageAdapterVersion": "1.40.0"},
                "spark_properties": {"properties": {"spark.master": "yarn", "spark.app.name": "shop"}},
                "spark.logicalPlan": {"plan": [node] * plan_nodes},
            },
        },
        "job": {
            "namespace": "spark",
            "name": "shop.execute_insert_into_hadoop_fs_relation_command.orders",
            "facets": {"jobType": {"processingType": "BATCH", "integration": "SPARK", "jobType": "SQL_JOB"}},
        },
        "inputs": [
            {"namespace": "s3://in", "name": "a", "inputFacets": {"inputStatistics": {"rowCount": 10, "size": 100}}},
            {"namespace": "s3://in", "name": "b", "inputFacets": {"inputStatistics": {"rowCount": 5, "size": -1}}},
        ],
        "outputs": [
            {
                "namespace": "s3://out",
                "name": "x",
                "outputFacets": {"outputStatistics": {"rowCount": 7, "size": 700, "fileCount": 1}},
            },
            {"namespace": "s3://out", "name": "y", "outputFacets": {"outputStatistics": {"rowCount": 8, "size": 800}}},
            {"namespace": "s3://out", "name": "z", "facets": {"schema": {"fields": []}}},
        ],
        **members,
    }


def minimal(**members: Any) -> dict[str, Any]:
    """The least that a run event may be; `...` leaves a member out."""
    event = {
        "eventType": "START",
        "eventTime": "2026-11-21T10:00:00Z",
        "producer": "https://example.org/etl/1.0",
        "schemaURL": SPEC,
        "run": {"runId": "r1"},
        "job": {"namespace": "prod", "name": "nightly"},
    }
    return {name: value for name, value in (event | members).items() if value is not ...}


NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TEN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
WIRE = OpenLineageWire()
BOUND = Caller(UUID(int=2), Role.INGEST, 7, "acme")
UNBOUND = Caller(UUID(int=1), Role.INGEST, None, None)


def request(body: object, path: str = "/api/v1/lineage", caller: Caller = BOUND, **query: str) -> Request:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(path, query, "application/json", text, caller, NOW, Limits(100, timedelta(days=400)))


def parse(body: object, **options: Any) -> Submission:
    return WIRE.parse(request(body, **options))


def run_event(event: object) -> RunEvent:
    """The run event that one event becomes."""
    submission = parse(event)
    assert submission.rejected == []
    (item,) = (item for item in submission.items if isinstance(item, RunEvent))
    assert item.event_id == content_digest(item).hex()
    return item


def with_run_facets(**facets: Any) -> dict[str, Any]:
    return minimal(run={"runId": "r1", "facets": facets})


def with_job_facets(**facets: Any) -> dict[str, Any]:
    return minimal(job={"namespace": "prod", "name": "nightly", "facets": facets})
