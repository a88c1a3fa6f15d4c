"""resolv.conf and the kube-dns ConfigMap."""

from __future__ import annotations

import pytest

from sampan.network.dns import names
from sampan.network.dns.config import Server, configured, nameservers, parse_server


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("8.8.8.8", ("8.8.8.8", 53)), ("8.8.8.8:5353", ("8.8.8.8", 5353)),
        ("[fd00::1]:5353", ("fd00::1", 5353)), ("fd00::1", ("fd00::1", 53)),
        ("[fd00::1]", ("fd00::1", 53)),
        ("8.8.8.8:x", None), ("8.8.8.8:0", None), ("dns.example", None), ("", None),
    ],
)  # fmt: skip
def test_a_server(text: str, server: Server | None) -> None:
    assert parse_server(text) == server


def test_resolv_conf() -> None:
    text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a\nnameserver\nnameserver ::1\n"
    text += "nameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n"
    assert [s[0] for s in nameservers(text)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


DEFAULT = (("10.0.0.1", 53),)


def test_the_nearest_stub_domain_answers() -> None:
    data = {
        "stubDomains": '{"acme.local": ["1.2.3.4"], "in.acme.local": ["1.2.3.5:54", "1.2.3.6"]}',
        "upstreamNameservers": '["8.8.8.8", "8.8.4.4"]',
    }
    config, problems = configured(data, DEFAULT)
    assert problems == []
    for name, servers in (
        ("x.ACME.local", ["1.2.3.4"]), ("acme.local", ["1.2.3.4"]),
        ("a.b.in.acme.local", ["1.2.3.5", "1.2.3.6"]), ("xacme.local", ["8.8.8.8", "8.8.4.4"]),
        ("local", ["8.8.8.8", "8.8.4.4"]), ("", ["8.8.8.8", "8.8.4.4"]),
    ):  # fmt: skip
        assert [s[0] for s in config.servers(names.wire(name))] == servers


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"stubDomains": "{"}, "stubDomains: not JSON"),
        ({"stubDomains": "[]"}, "stubDomains: not a JSON object"),
        ({"upstreamNameservers": "{}"}, "upstreamNameservers: not a JSON array"),
        ({"stubDomains": '{"a": []}'}, "stubDomains[a]: no servers"),
        ({"stubDomains": '{"a..b": ["1.2.3.4"]}'}, "stubDomains[a..b]: label of 0 bytes in 'a..b'"),
        ({"stubDomains": '{"a": "1.2.3.4"}'}, "stubDomains[a]: no servers"),
        ({"upstreamNameservers": '["x"]'},
         "upstreamNameservers: 'x' is not an address with an optional port"),
        ({"upstreamNameservers": '["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]'},
         "upstreamNameservers: only the first 3 are used"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_left_out(data: dict[str, str], problem: str) -> None:
    config, problems = configured(data, DEFAULT)
    assert problem in problems
    assert all(config.stubs.values())


def test_without_a_config_map_the_nodes_servers_are_asked() -> None:
    assert configured({}, DEFAULT)[0].servers(names.wire("x.test")) == DEFAULT
