"""Door 4: the ways in which people are told, one file each. To add one, list it here."""

from collections.abc import Mapping
from typing import Any

from pulsewatch.channels import email, slack, webhook
from pulsewatch.channels.base import ChannelKind

CHANNELS: Mapping[str, ChannelKind[Any, Any]] = {
    kind.name: kind for kind in (webhook.CHANNEL, email.CHANNEL, slack.CHANNEL)
}
