"""Which addresses alert channels may reach. Pure: addresses and names in, verdicts out, no look-ups."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Here clouds hand out passwords to whoever asks from inside. 168.63.129.16 is Azure's and looks public.
METADATA = frozenset(
    ip_address(text)
    for text in (
        "100.100.100.200",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "192.0.0.192",
        "fd00:ec2::23",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)

# `is_global` alone differs between versions of Python and lets multicast, 6to4 and NAT64 pass. After IANA's
# registries of special-purpose addresses; the first that matches names the address in errors.
SPECIAL: Sequence[tuple[Network, str]] = tuple(
    (ip_network(text), words)
    for text, words in (
        ("0.0.0.0/8", "this machine's own"),
        ("127.0.0.0/8", "a loopback"),
        ("10.0.0.0/8", "a private"),
        ("172.16.0.0/12", "a private"),
        ("192.168.0.0/16", "a private"),
        ("100.64.0.0/10", "a carrier's private"),
        ("169.254.0.0/16", "a link-local"),
        ("192.0.0.0/24", "a protocol's"),
        ("192.0.2.0/24", "a documentation"),
        ("192.31.196.0/24", "a reserved"),
        ("192.52.193.0/24", "a reserved"),
        ("192.88.99.0/24", "a 6to4 relay's"),
        ("192.175.48.0/24", "a reserved"),
        ("198.18.0.0/15", "a benchmark's"),
        ("198.51.100.0/24", "a documentation"),
        ("203.0.113.0/24", "a documentation"),
        ("224.0.0.0/4", "a multicast"),
        ("255.255.255.255/32", "the broadcast"),
        ("240.0.0.0/4", "a reserved"),
        ("::/128", "this machine's own"),
        ("::1/128", "a loopback"),
        ("64:ff9b:1::/48", "a private NAT64"),
        ("fc00::/7", "a private"),
        ("fe80::/10", "a link-local"),
        ("fec0::/10", "a site-local"),
        ("ff00::/8", "a multicast"),
        ("2001::/32", "a Teredo"),
        ("2001::/23", "a protocol's"),
        ("2001:db8::/32", "a documentation"),
        ("2002::/16", "a 6to4"),
        ("3fff::/20", "a documentation"),
    )
)
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")

# Servers that do not speak HTTP or SMTP and could be made to act on what they take for commands. After the list of
# https://fetch.spec.whatwg.org/#port-blocking, and databases.
NO_PORTS = frozenset(
    (
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109),
        *(110, 111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 179, 389, 427, 445, 512, 513, 514, 515, 526),
        *(530, 531, 532, 540, 548, 554, 556, 563, 601, 636, 873, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723),
        *(2049, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5900, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669),
        *(6679, 6697, 9042, 10080, 11211, 27017),
    )
)
MAIL_PORTS = frozenset({25, 465, 587})

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class Guard:
    """Public addresses pass, and those that `allow` opens.

    A metadata address is opened by itself alone (169.254.169.254/32), never by a network around it.
    """

    allow: Sequence[Network] = ()

    def objection(self, address: Address) -> str | None:
        """What the address is, such as "a private address", if it may not be reached; None if it may."""
        address = unwrapped(address)
        own = ip_network(address)
        if address in METADATA:
            return None if own in self.allow else "a metadata address"
        if any(address in network for network in self.allow):
            return None
        for network, words in SPECIAL:
            if address in network:
                return f"{words} address"
        is_public = address.is_global and (isinstance(address, IPv4Address) or address in GLOBAL_UNICAST)
        return None if is_public else "a reserved address"


def unwrapped(address: Address) -> Address:
    """The address that packets really go to: the IPv4 inside ::ffff:0:0/96 and inside the NAT64 of 64:ff9b::/96.

    The zone goes too. 6to4 and Teredo stay as they are: nobody's webhooks lie there, so they are refused whole.
    """
    if isinstance(address, IPv4Address):
        return address
    plain = IPv6Address(int(address))
    if plain.ipv4_mapped is not None:
        return plain.ipv4_mapped
    return IPv4Address(int(plain) & 0xFFFFFFFF) if plain in NAT64 else plain


def parse_host(host: str) -> str | Address:
    """The name, or the address written out (IPv6 without brackets). Raises ValueError, which says what is wrong.

    Names that resolvers read as numbers (2130706433, 0x7f.1, 127.1) are refused: one reader's name is another one's
    address. So are zones (fe80::1%eth0) and everything that is not ASCII, which is to be written as xn--.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("names a zone")
        return IPv6Address(host)
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise ValueError("is no host name")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return IPv4Address(host)
        except ValueError:
            raise ValueError("is an unusual way to write an address") from None
    return host
