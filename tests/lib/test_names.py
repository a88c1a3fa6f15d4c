"""Name rules: what they accept, and Kubernetes' words for what they do not."""

from __future__ import annotations

import pytest

from sampan.lib import names

LABEL_PROBLEM = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_PROBLEM = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
NAME_PART_PROBLEM = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        (names.dns1123_label, "a"),
        (names.dns1123_label, "0a-b"),
        (names.dns1123_label, "a" * 63),
        (names.dns1123_subdomain, "a.b-c.d"),
        (names.dns1123_subdomain, ".".join(["a" * 62] * 4)),
        (names.path_segment, "system:node"),
        (names.qualified_name, "app.kubernetes.io/name"),
        (names.qualified_name, "A_b.c"),
        (names.label_value, ""),
        (names.label_value, "v1.2_X"),
        (names.env_name, "1 odd name!"),
        (names.config_key, "tls.crt"),
        (names.config_key, "-dash_"),
        (names.port_name, "http-2"),
        (names.percent, "25%"),
        (names.ip, "10.0.0.1"),
        (names.ip, "fd00::1"),
        (names.cidr, "10.0.0.0/8"),
        (names.header_name, "X-Thing"),
    ],
)
def test_accepts(rule, good):
    assert rule(good) == []


@pytest.mark.parametrize(
    ("rule", "bad", "problems"),
    [
        (names.dns1123_label, "A", [LABEL_PROBLEM]),
        (names.dns1123_label, "", [LABEL_PROBLEM]),
        (names.dns1123_label, "a\n", [LABEL_PROBLEM]),
        (names.dns1123_label, "a.b", ["must not contain dots"]),
        (names.dns1123_label, "a" * 64, ["must be no more than 63 bytes"]),
        (names.dns1123_subdomain, "-a", [SUBDOMAIN_PROBLEM]),
        (names.dns1123_subdomain, "a..b", [SUBDOMAIN_PROBLEM]),
        (names.path_segment, "..", ["may not be '..'"]),
        (names.path_segment, "a/b%", ["may not contain '/'", "may not contain '%'"]),
        (names.qualified_name, "", ["name part must be non-empty", NAME_PART_PROBLEM]),
        (names.qualified_name, "a/", ["name part must be non-empty", NAME_PART_PROBLEM]),
        (names.qualified_name, "/a", ["prefix part must be non-empty"]),
        (names.qualified_name, "A/a", [f"prefix part {SUBDOMAIN_PROBLEM}"]),
        (names.qualified_name, "a" * 64, ["name part must be no more than 63 bytes"]),
        (names.env_name, "", ["environment variable name must be non-empty"]),
        (names.config_key, "..", ["must not be '..'"]),
        (names.config_key, "..a", ["must not start with '..'"]),
        (
            names.port_name,
            "-A--",
            [
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)",
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen",
            ],
        ),
        (names.port_name, "a" * 16, ["must be no more than 15 bytes"]),
        (names.port_number, 0, ["must be between 1 and 65535, inclusive"]),
        (names.ip, "10.0.0.256", [
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        ]),
        (names.ip, "10.0.0.01", ["must not have leading 0s"]),
        (names.ip, "::ffff:10.0.0.1", ["must not be an IPv4-mapped IPv6 address"]),
        (names.cidr, "010.0.0.0/8", ["must not have leading 0s in IP or prefix length"]),
        (names.cidr, "10.0.0.0/08", ["must not have leading 0s in IP or prefix length"]),
        (names.cidr, "::ffff:10.0.0.0/104", ["must not have an IPv4-mapped IPv6 address"]),
        (names.cidr, "10.0.0.1/8", ["must not have bits set beyond the prefix length"]),
        (names.cidr, "fd00::1/64", ["must not have bits set beyond the prefix length"]),
        (names.cidr, "10.0.0.0", [
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        ]),
    ],
)  # fmt: skip
def test_refuses(rule, bad, problems):
    assert rule(bad) == problems


@pytest.mark.parametrize("bad", ["A=B", "ü", "a\tb"])
def test_environment_names_are_printable_ascii_without_equals(bad):
    assert names.env_name(bad) == [
        "a valid environment variable name must consist only of printable ASCII characters other "
        "than '='"
    ]


def test_answers_about_names_are_the_callers_own():
    """What is remembered of a name is not what is handed out."""
    names.qualified_name("/a").clear()
    assert names.qualified_name("/a") == ["prefix part must be non-empty"]
    assert len(names.qualified_name("a" * 1000)) == 1


def test_a_qualified_name_has_at_most_one_slash():
    (problem,) = names.qualified_name("a/b/c")
    assert problem.startswith("a qualified name must consist of")
    assert problem.endswith(
        "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
    )


def test_a_generated_name_may_end_with_a_dash_before_its_suffix():
    assert names.dns1123_label(names.mask_dash("web-")) == []
    assert names.dns1123_label(names.mask_dash("Web-")) != []
    assert names.mask_dash("web") == "web"


@pytest.mark.parametrize("bad", ["fe80::1%eth0", "010.0.0.1", "1.2.3", ""])
def test_addresses_are_plain(bad):
    assert names.ip(bad)
    assert names.cidr(f"{bad}/24")


@pytest.mark.parametrize("bad", ["10.0.0.0/255.0.0.0", "10.0.0.0/33", "10.0.0.0/", "/8"])
def test_prefixes_are_lengths(bad):
    assert names.cidr(bad)
