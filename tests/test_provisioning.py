"""Grafana's provisioning files, checked without Grafana: keys, variables, and paths that agree with each other."""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from grafana.build import BOARDS, FOLDER
from grafana.kit import DATASOURCE

ROOT = Path(__file__).parents[1]
PROVISIONING = ROOT / "grafana" / "provisioning"
DATASOURCES = PROVISIONING / "datasources" / "pulsewatch.yaml"
PROVIDERS = PROVISIONING / "dashboards" / "pulsewatch.yaml"
GRAFANA: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
# Where the image looks for provisioning.
PROVISIONED_AT = "/etc/grafana/provisioning"
PAGE = (ROOT / "docs" / "grafana.md").read_text()


class Strict(BaseModel):
    """Grafana passes over a key that it does not know, so that a misspelt one would go unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Options(Strict):
    path: str
    folders_from_files: Literal[True] = Field(alias="foldersFromFilesStructure")


class Provider(Strict):
    """`folder` and `folderUid` must be left out where folders come from the files."""

    name: str
    org_id: Literal[1] = Field(alias="orgId")
    type: Literal["file"]
    is_kept: bool = Field(alias="disableDeletion")
    allow_ui_updates: Literal[False] = Field(alias="allowUiUpdates")
    update_interval_s: int = Field(alias="updateIntervalSeconds")
    options: Options


class Providers(Strict):
    api_version: Literal[1] = Field(alias="apiVersion")
    providers: list[Provider]


class JsonData(Strict):
    """What the PostgreSQL data source of Grafana 9.4 to 13 reads; the database belongs here, not one level up."""

    database: str
    sslmode: str
    postgres_version: int = Field(alias="postgresVersion")
    timescaledb: Literal[False]
    time_interval: str = Field(alias="timeInterval", pattern=r"^\d+[smh]$")
    max_open: int = Field(alias="maxOpenConns", gt=0)
    max_idle: int = Field(alias="maxIdleConns", gt=0)
    max_life: int = Field(alias="connMaxLifetime", gt=0)


class SecureJsonData(Strict):
    password: str


class DataSource(Strict):
    name: str
    uid: str
    type: str
    access: Literal["proxy"]
    url: str
    user: str
    is_default: bool = Field(alias="isDefault")
    editable: Literal[False]
    json_data: JsonData = Field(alias="jsonData")
    secure_json_data: SecureJsonData = Field(alias="secureJsonData")


class DataSources(Strict):
    api_version: Literal[1] = Field(alias="apiVersion")
    prune: bool
    datasources: list[DataSource]


(SOURCE,) = DataSources.model_validate(yaml.safe_load(DATASOURCES.read_text())).datasources
(PROVIDER,) = Providers.model_validate(yaml.safe_load(PROVIDERS.read_text())).providers


def used_variables() -> set[str]:
    text = "".join(path.read_text() for path in PROVISIONING.rglob("*.yaml"))
    return set(re.findall(r"\$([A-Z][A-Z0-9_]+)", text))


def inside(path: str) -> Path | None:
    """The file or folder of ours that stands at this path in the container."""
    for volume in GRAFANA["volumes"]:
        ours, there, *_ = volume.split(":")
        if ours.startswith(".") and (path == there or path.startswith(f"{there}/")):
            return ROOT.joinpath(ours, os.path.relpath(path, there))
    return None


def test_no_file_lies_where_grafana_does_not_look() -> None:
    assert {path for path in PROVISIONING.rglob("*") if path.is_file()} == {DATASOURCES, PROVIDERS}
    assert inside(PROVISIONED_AT) == PROVISIONING / "."


def test_every_variable_that_is_used_is_given_and_no_other() -> None:
    given = {name for name in GRAFANA["environment"] if name.startswith("PULSEWATCH_")}
    assert used_variables() == given


def test_every_variable_and_path_is_on_the_page_for_a_grafana_of_ones_own() -> None:
    assert [name for name in sorted(used_variables()) if f"`{name}`" not in PAGE] == []
    assert PROVISIONED_AT in PAGE
    assert PROVIDER.options.path in PAGE
    assert SOURCE.uid in PAGE


def test_the_dashboards_ask_the_data_source_that_is_provided() -> None:
    assert DATASOURCE.uid == SOURCE.uid
    assert GRAFANA["environment"]["PULSEWATCH_DS_TYPE"] == DATASOURCE.type_val
    for name in BOARDS:
        text = (FOLDER / f"{name}.json").read_text()
        assert set(re.findall(r'"uid": "([^"]+)"', text)) == {SOURCE.uid, json.loads(text)["uid"]}


def test_the_dashboards_lie_where_the_provider_looks() -> None:
    folder = inside(PROVIDER.options.path)
    assert folder is not None
    assert sorted(path.name for path in folder.rglob("*.json")) == sorted(f"{name}.json" for name in BOARDS)
    # A folder of this name is what people see; the volume of Grafana's own data would hide what lies within it.
    assert {path.parent.name for path in folder.rglob("*.json")} == {"PulseWatch"}
    assert not PROVIDER.options.path.startswith("/var/lib/grafana/")


def test_the_first_page_is_the_fleet() -> None:
    home = inside(GRAFANA["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home is not None
    assert json.loads(home.read_text())["uid"] == "pw-fleet"


def test_a_grafana_that_has_a_default_data_source_keeps_it() -> None:
    """Two defaults in provisioned files keep Grafana from starting."""
    assert not SOURCE.is_default


def test_the_password_comes_from_a_file_that_is_mounted() -> None:
    found = re.fullmatch(r"\$__file\{/run/secrets/(\w+)\}", SOURCE.secure_json_data.password)
    assert found is not None
    assert found[1] in GRAFANA["secrets"]


def test_grafana_keeps_within_the_connections_that_the_page_on_readers_allows() -> None:
    readers = (ROOT / "docs" / "readers.md").read_text()
    assert f"Allow Grafana at most {SOURCE.json_data.max_open} connections" in readers
    assert SOURCE.json_data.max_idle <= SOURCE.json_data.max_open
