"""Which addresses are let pass, and which names are read at all."""

from ipaddress import ip_address, ip_network

import pytest

from pulsewatch.addresses import METADATA, NO_PORTS, Guard, parse_host

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::5"]
WRAPPED_PUBLIC = ["::ffff:8.8.8.8", "64:ff9b::808:808"]
SPECIAL = {
    "0.0.0.0": "this machine's own",  # noqa: S104 (nothing is bound)
    "0.1.2.3": "this machine's own",
    "127.0.0.1": "a loopback",
    "127.255.255.254": "a loopback",
    "10.0.0.1": "a private",
    "172.16.0.1": "a private",
    "172.31.255.255": "a private",
    "192.168.1.1": "a private",
    "100.64.0.1": "a carrier's private",
    "100.127.255.255": "a carrier's private",
    "169.254.1.1": "a link-local",
    "192.0.0.8": "a protocol's",
    "192.0.2.1": "a documentation",
    "192.88.99.1": "a 6to4 relay's",
    "198.18.0.1": "a benchmark's",
    "198.19.255.255": "a benchmark's",
    "198.51.100.1": "a documentation",
    "203.0.113.1": "a documentation",
    "224.0.0.1": "a multicast",
    "239.255.255.255": "a multicast",
    "240.0.0.1": "a reserved",
    "255.255.255.255": "the broadcast",
    "::": "this machine's own",
    "::1": "a loopback",
    "::127.0.0.1": "a reserved",
    "::ffff:127.0.0.1": "a loopback",
    "::ffff:10.0.0.1": "a private",
    "64:ff9b::7f00:1": "a loopback",
    "64:ff9b::a00:1": "a private",
    "64:ff9b:1::a00:1": "a private NAT64",
    "100::1": "a reserved",
    "2001::1": "a Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "a Teredo",
    "2001:2::1": "a protocol's",
    "2001:db8::1": "a documentation",
    "2002:7f00:1::": "a 6to4",
    "2002:808:808::1": "a 6to4",
    "3fff::1": "a documentation",
    "4000::1": "a reserved",
    "5f00::1": "a reserved",
    "fc00::1": "a private",
    "fd12:3456::1": "a private",
    "fe80::1": "a link-local",
    "fe80::1%eth0": "a link-local",
    "fec0::1": "a site-local",
    "ff02::1": "a multicast",
    "ff0e::1": "a multicast",
}
METADATA_FORMS = [*sorted(map(str, METADATA)), "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]


@pytest.mark.parametrize("address", [*PUBLIC, *WRAPPED_PUBLIC])
def test_a_public_address_passes(address: str) -> None:
    assert Guard().objection(ip_address(address)) is None


@pytest.mark.parametrize("address", SPECIAL)
def test_what_is_not_public_is_refused_by_its_name(address: str) -> None:
    assert Guard().objection(ip_address(address)) == f"{SPECIAL[address]} address"


@pytest.mark.parametrize("address", METADATA_FORMS)
def test_a_metadata_address_is_opened_by_itself_alone(address: str) -> None:
    networks = [ip_network(text) for text in ("0.0.0.0/0", "::/0")]
    assert Guard().objection(ip_address(address)) == "a metadata address"
    assert Guard(networks).objection(ip_address(address)) == "a metadata address"


def test_a_metadata_address_that_is_listed_itself_passes() -> None:
    guard = Guard([ip_network("169.254.169.254")])
    assert guard.objection(ip_address("169.254.169.254")) is None
    assert guard.objection(ip_address("169.254.169.253")) == "a link-local address"


def test_a_listed_network_passes_in_every_form_and_its_neighbours_do_not() -> None:
    guard = Guard([ip_network("10.20.0.0/16"), ip_network("fd00:1::/32")])
    for address in ("10.20.3.4", "::ffff:10.20.3.4", "64:ff9b::a14:304", "fd00:1::5"):
        assert guard.objection(ip_address(address)) is None
    assert guard.objection(ip_address("10.21.0.1")) == "a private address"
    assert guard.objection(ip_address("fd00:2::5")) == "a private address"


def test_listed_loopback_opens_nothing_that_only_leads_to_it() -> None:
    guard = Guard([ip_network("127.0.0.0/8")])
    assert guard.objection(ip_address("0.0.0.0")) == "this machine's own address"  # noqa: S104 (nothing is bound)
    assert guard.objection(ip_address("::1")) == "a loopback address"


@pytest.mark.parametrize("host", ["example.org", "example.org.", "a-b.c_d.e", "xn--bcher-kva.example", "localhost"])
def test_a_name_is_a_name(host: str) -> None:
    assert parse_host(host) == host


@pytest.mark.parametrize("host", ["8.8.8.8", "::1", "2001:db8::1", "::ffff:1.2.3.4"])
def test_an_address_is_an_address(host: str) -> None:
    assert parse_host(host) == ip_address(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0X7F.0.0.1",
            "017700000001",
            "0177.0.0.1",
            "127.1",
            "127.0.1",
            "0",
            "00",
        ),
        *("127.0.0.1.", "127.0.0.01", "127.0.0.0x1", "256.256.256.256", "1.2.3.4.5", "0x", "example.0", "127.0.0.1.."),
    ],
)
def test_what_resolvers_read_as_a_number_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"is an unusual way to write an address|is no host name"):
        parse_host(host)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1%25eth0", "::1%lo"])
def test_a_zone_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="names a zone"):
        parse_host(host)


@pytest.mark.parametrize(
    "host",
    ["", ".", "a..b", "-a.b", "a b", "a\r\nb", "a\0b", "a/b", "a%2eb", "①.②", "localhost。", "x" * 64, "a." * 127],
)
def test_what_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        parse_host(host)


def test_ports_of_other_protocols_are_closed_and_those_of_the_web_are_not() -> None:
    assert {0, 22, 23, 53, 110, 445, 3306, 5432, 6379, 11211} <= NO_PORTS
    assert not {80, 443, 3000, 8000, 8080, 8443, 9093} & NO_PORTS
