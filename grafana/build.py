"""Writes the dashboards in grafana/dashboards/PulseWatch: `make dashboards`, or `python -m grafana.build`.

The files are committed, so that nobody needs this program to use them; a test writes them again and compares.
Every number comes from the schema `analytics`: a query here names columns and filters rows, and computes nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.alerts import alerts
from grafana.client import client
from grafana.fleet import fleet
from grafana.ingestion import ingestion
from grafana.pipeline import pipeline

FOLDER = Path(__file__).parent / "dashboards" / "PulseWatch"
BOARDS = {"fleet": fleet, "client": client, "pipeline": pipeline, "alerts": alerts, "ingestion": ingestion}


def document(build: Callable[[], Dashboard]) -> str:
    """The dashboard as the text of its file."""
    made = json.loads(JSONEncoder(sort_keys=True).encode(build().build()))
    for place, panel in enumerate(made["panels"], start=1):
        panel["id"] = place
    # Empty lists are left out by the builder; some versions of Grafana read them all the same.
    for part in ("annotations", "templating"):
        made.setdefault(part, {}).setdefault("list", [])
    # The builder hides links and annotations in a menu, which older Grafanas do not know.
    for hidden in (*made["links"], *made["annotations"]["list"]):
        hidden.pop("placement", None)
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every dashboard into its file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, build in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(document(build), encoding="utf-8")


if __name__ == "__main__":
    main()
