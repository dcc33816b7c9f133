"""docs/channels.md: what it shows is what is sent, its fields are complete, its programs run."""

import json
import sys
import time
from types import ModuleType
from typing import Any

import pytest

from pulsewatch import channels
from pulsewatch.channels import CHANNELS, webhook
from pulsewatch.channels.base import Sent
from pulsewatch.outbound import Outbound
from tests.channels.given import FIRING
from tests.channels.receivers import Receiver
from tests.running import ROOT
from tests.test_docs import fences, table

PAGE = ROOT / "docs/channels.md"
EXAMPLES = [json.loads(text) for text in fences(PAGE, "json")]
SETUPS = {example["kind"]: example for example in EXAMPLES if "kind" in example}


@pytest.mark.parametrize("name", CHANNELS)
def test_every_kind_is_set_up_as_shown(name: str) -> None:
    kind, setup = CHANNELS[name], SETUPS[name]
    assert setup.keys() == {"kind", "config", "secrets"}
    kind.Config.model_validate(setup["config"])
    kind.Secrets.model_validate(setup["secrets"])


@pytest.mark.parametrize("name", CHANNELS)
def test_every_field_is_explained(name: str) -> None:
    kind = CHANNELS[name]
    fields = [f"config.{field}" for field in kind.Config.model_fields]
    fields += [f"secrets.{field}" for field in kind.Secrets.model_fields]
    assert [row[0].strip("`") for row in table(PAGE, f"## {kind.title}")] == fields


def test_the_body_shown_is_the_body_sent() -> None:
    (shown,) = (example for example in EXAMPLES if "version" in example)
    assert shown == json.loads(webhook.encode(webhook.payload(FIRING, "pulsewatch")))


def programs() -> tuple[str, str, str]:
    """Verifying, a further kind, its test."""
    verifying, kind, test = fences(PAGE, "python")
    return verifying, kind, test


def test_the_program_shown_verifies_what_arrives(
    outbound: Outbound, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifying: dict[str, Any] = {}
    exec(programs()[0], verifying)  # noqa: S102 (our own page)
    verify = verifying["verify"]
    (old,) = SETUPS["webhook"]["secrets"]["signing_secrets"]
    new = "whsec_" + "bmV3" * 12
    secrets = webhook.Secrets(signing_secrets=(new, old))
    webhook.CHANNEL.send(FIRING, webhook.Config(url=receiver.url), secrets, outbound, None)
    (got,) = receiver.got
    for secret in (old, new):
        verify(got.headers, got.body, secret)
    for headers, body, secret in (
        (got.headers, got.body + b" ", old),
        (got.headers | {"webhook-id": "msg_0"}, got.body, old),
        (got.headers, got.body, "whsec_" + "b3Ro" * 12),
        ({**got.headers, "webhook-signature": ""}, got.body, old),
    ):
        with pytest.raises(ValueError, match="not signed"):
            verify(headers, body, secret)
    late = time.time() + 400
    monkeypatch.setattr(time, "time", lambda: late)
    with pytest.raises(ValueError, match="too old"):
        verify(got.headers, got.body, old)


def test_the_further_kind_shown_is_a_kind_and_passes_its_test(
    outbound: Outbound, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, kind, test = programs()
    ntfy = ModuleType("pulsewatch.channels.ntfy")
    monkeypatch.setitem(sys.modules, ntfy.__name__, ntfy)
    monkeypatch.setattr(channels, "ntfy", ntfy, raising=False)
    exec(kind, ntfy.__dict__)  # noqa: S102
    told: dict[str, Any] = {"FIRING": FIRING, "Sent": Sent, "json": json, "ntfy": ntfy}
    exec(test, told)  # noqa: S102
    told["test_what_arrives_is_the_message"](outbound, receiver)
