"""Names under which jobs are shown without a token."""

from __future__ import annotations

import pytest

from lpw_sdxl.api.hosts import is_own_host
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.api.own_names import read_hosts
from lpw_sdxl.errors import SettingsError

OWN = [
    "127.0.0.1:3000",
    "10.1.2.3",
    "[::1]:3000",
    "localhost:3000",
    "LOCALHOST",
    "lpw:3000",
    "box.local",
    "box.lan:3000",
    "box.home.arpa",
    "lpw.default.svc",
    "lpw.default.svc.cluster.local",
    "metadata.internal",
    "localhost.",
]
FOREIGN = [
    "evil.example.org",
    "evil.example.org:3000",
    "127.0.0.1.evil.org",
    "local.evil.org",
    "localhost.evil.org",
    "",
    "a b.org",
    "user@evil.org",
    "[::1",
]


def scope(*hosts: str) -> dict[str, object]:
    return {"headers": [(b"host", host.encode()) for host in hosts]}


@pytest.mark.parametrize("host", OWN)
def test_names_that_no_stranger_can_own_are_trusted(host: str) -> None:
    assert is_own_host(scope(host), Origins())


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not(host: str) -> None:
    assert not is_own_host(scope(host), Origins())


def test_a_name_that_the_operator_opened_is_trusted() -> None:
    opened = Origins(("https://images.example.org:8443",))
    assert is_own_host(scope("images.example.org"), opened)
    assert not is_own_host(scope("other.example.org"), opened)
    assert is_own_host(scope("anything.example.org"), Origins(("*",)))


def test_two_hosts_are_not_trusted_and_none_is_no_browsers() -> None:
    assert not is_own_host(scope("localhost", "localhost"), Origins())
    assert is_own_host(scope(), Origins())


def test_a_listed_name_is_trusted_for_its_pages_too() -> None:
    own = Origins(own_names=read_hosts("images.example.org, GPU.example.net"))
    for name in ("images.example.org:8443", "gpu.example.net."):
        assert is_own_host(scope(name), own)
        assert not is_own_host(scope(f"a.{name}"), own)
    host = (b"host", b"gpu.example.net:3000")
    page = {"headers": [host, (b"origin", b"https://gpu.example.net:3000")]}
    assert own.refuse(page) is None
    assert Origins().refuse(page) is not None
    strange = {"headers": [host, (b"origin", b"https://images.example.org")]}
    assert own.refuse(strange) is not None, "another name of this server is another origin"


@pytest.mark.parametrize(
    "text", ["https://a.org", "a.org:3000", "a.org/x", "*.a.org", "*", ".a.org", "me:canary@a.org"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"LPW_SDXL_HOSTS: .* is no name of a host") as refusal:
        read_hosts(text)
    assert "canary" not in str(refusal.value)
