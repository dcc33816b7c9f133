"""What channels send to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pulsewatch.outbound import Outbound
from tests.channels import receivers
from tests.channels.certificates import Authority
from tests.channels.receivers import Postbox, Receiver


@pytest.fixture
def outbound() -> Outbound:
    return receivers.outbound()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receivers.web_server() as started:
        yield started


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    with receivers.mail_server() as started:
        yield started


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
