"""Where webhooks may go: only to public addresses, whatever a URL looks like and whatever its name leads to."""

from collections.abc import Sequence

import pytest

from apps.observability.delivery import addresses
from apps.observability.delivery.addresses import Refused, Unreachable, check, fault_of, networks, parse


def leads_to(*found: str) -> addresses.Resolver:
    def resolve(host: str, port: int) -> Sequence[str]:
        return found

    return resolve


class TestTheForm:
    @pytest.mark.parametrize(
        "url",
        [
            "https://hooks.example.org/services/T0/B0?x=1",
            "http://example.org:8080",
            "https://[2606:4700::1111]/hook",
            "HTTPS://EXAMPLE.ORG/",
        ],
    )
    def test_of_a_webhook_is_taken(self, url: str) -> None:
        assert parse(url).hostname

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("", "visible ASCII"),
            ("ftp://example.org/", "must begin with"),
            ("file:///etc/passwd", "must begin with"),
            ("gopher://example.org/", "must begin with"),
            ("//example.org/", "must begin with"),
            ("https:///nowhere", "name a host"),
            ("https://user:secret@example.org/", "user or a password"),
            ("https://@example.org/", "user or a password"),
            ("https://example.org:0/", "port above 0"),
            ("https://example.org:99999/", "is not a URL"),
            ("https://example.org:http/", "is not a URL"),
            ("https://[::1/", "is not a URL"),
            ("https://example.org/a b", "visible ASCII"),
            ("https://example.org/\r\nHost: other", "visible ASCII"),
            ("https://example.org/\x00", "visible ASCII"),
            ("https://example.org\\@10.0.0.1/", "visible ASCII"),
            ("https://bücher.example/", "xn--"),
            ("https://exa$mple.org/", "name a host"),
            ("https://example.org/" + "a" * 2000, "visible ASCII"),
        ],
    )
    def test_of_anything_else_is_refused_with_the_reason(self, url: str, says: str) -> None:
        with pytest.raises(Refused, match=says):
            parse(url)


class TestTheAddress:
    @pytest.mark.parametrize("public", ["93.184.215.14", "2606:4700::1111", "64:ff9b::5db8:d70e", "2002:5db8:d70e::1"])
    def test_of_the_public_internet_is_allowed(self, public: str) -> None:
        assert fault_of(public) == ""

    @pytest.mark.parametrize(
        ("address", "kind"),
        [
            ("127.0.0.1", "this machine"),
            ("127.255.255.254", "this machine"),
            ("::1", "this machine"),
            ("0.0.0.0", "anybody"),
            ("::", "anybody"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("192.168.1.1", "private"),
            ("192.0.2.1", "private"),
            ("198.18.0.1", "private"),
            ("100.64.0.1", "reserved"),
            ("240.0.0.1", "private|reserved"),
            ("255.255.255.255", "private|reserved"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.1", "multicast"),
            ("fc00::1", "private"),
            ("fd12:3456::1", "private"),
            ("fe80::1", "link-local"),
            ("fe80::1%eth0", "link-local"),
            ("fec0::1", "private|reserved"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "private"),
            ("::ffff:10.0.0.1", "private"),
            ("::ffff:127.0.0.1", "this machine"),
            ("::10.0.0.1", "private"),
            ("2002:a00:1::1", "private"),
            ("2002:7f00:1::", "this machine"),
            ("64:ff9b::a00:1", "private"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("64:ff9b:1::a00:1", "private|reserved"),
            ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "private"),
        ],
    )
    def test_of_anything_else_is_refused(self, address: str, kind: str) -> None:
        assert any(one in fault_of(address) for one in kind.split("|"))

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://017700000001/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://10.0.0.1:80/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/",
        ],
    )
    def test_counts_however_it_is_spelt(self, url: str) -> None:
        with pytest.raises(Refused, match="ESPER_WEBHOOK_ALLOWED_NETWORKS"):
            check(url)


class TestTheName:
    def test_is_looked_up_once_and_its_address_is_what_counts(self) -> None:
        target = check("https://hooks.example.org/a?b=c", resolver=leads_to("93.184.215.14", "93.184.215.14"))

        assert target.addresses == ("93.184.215.14",)
        assert (target.host, target.port, target.path) == ("hooks.example.org", 443, "/a?b=c")

    @pytest.mark.parametrize("found", [("127.0.0.1",), ("93.184.215.14", "10.0.0.1"), ("2606:4700::1111", "::1")])
    def test_that_leads_inside_with_any_of_its_addresses_is_refused(self, found: tuple[str, ...]) -> None:
        with pytest.raises(Refused, match=r"hooks\.example\.org leads to"):
            check("https://hooks.example.org/", resolver=leads_to(*found))

    def test_without_an_address_may_have_one_later(self) -> None:
        with pytest.raises(Unreachable):
            check("https://hooks.example.org/", resolver=leads_to())
        with pytest.raises(Unreachable, match="has no address"):
            check(f"https://{'a' * 70}.example.org/")


class TestAllowedNetworks:
    def test_let_a_webhook_inside_and_nowhere_else(self) -> None:
        allowed = networks(["10.1.0.0/16", " fd00:1::/32"])

        assert [fault_of(one, allowed) for one in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5")] == ["", "", ""]
        assert fault_of("10.2.0.1", allowed)
        assert fault_of("fd00:2::5", allowed)

    @pytest.mark.parametrize("wrong", ["10.0.0.1/8", "somewhere", "10.0.0.0/40", ""])
    def test_are_networks(self, wrong: str) -> None:
        with pytest.raises(ValueError, match=r"network|address|host bits"):
            networks([wrong])
