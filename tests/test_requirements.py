"""The pinned requirements install on a fresh machine, whatever has been released since."""

import re
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.running import ROOT

PIN = re.compile(r"^([a-z0-9-]+)(?:\[([a-z0-9,-]+)\])?==", re.MULTILINE)


def pinned(path: Path) -> dict[str, set[str]]:
    """Each package that the file pins, with the extras that its line names."""
    return {name: set(extras.split(",")) if extras else set() for name, extras in PIN.findall(path.read_text())}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_an_extra_that_a_package_asks_for_stands_in_its_pin(name: str) -> None:
    # Without it older pips try the newest release, which has no hash here, as soon as there is one.
    pins = pinned(ROOT / name)
    installed = [found for found in distributions() if found.name.lower().replace("_", "-") in pins]
    assert len(installed) > 20  # not all: some are for other Pythons
    wanted = {
        (needed.name.lower(), extra)
        for package in installed
        for needed in map(Requirement, package.requires or ())
        if needed.name.lower() in pins and (needed.marker is None or needed.marker.evaluate({"extra": ""}))
        for extra in needed.extras
    }
    assert {(package, extra) for package, extra in wanted if extra not in pins[package]} == set()
