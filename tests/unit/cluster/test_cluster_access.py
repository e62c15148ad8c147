"""How the tests reach a cluster: kubeconfigs that only their owner reads, certificates that hold, bounded waits."""

from __future__ import annotations

import http.server
import json
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID, NameOID

from cluster.access import Api, Kubectl, Refused, until, write_kubeconfig
from cluster.certificates import Authority, key_pair
from cluster.plane import free_ports, start_time


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = {
            "/fine": (200, {"said": self.headers.get("Authorization")}),
            "/status": (409, {"message": "it is taken"}),
        }
        code, body = known.get(self.path, (502, "<html>nobody home</html>"))
        text = (json.dumps(body) if isinstance(body, dict) else body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def server(authority) -> Iterator[str]:
    """An HTTPS server that only clients with a certificate of the authority may use."""
    pair = authority.issue("server", "server", hosts=("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.pair.certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    listening = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()


def loaded(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_certificate_names_its_user_and_groups_and_is_signed_by_the_authority(authority):
    pair = authority.issue("admin", "somebody", groups=("system:masters", "others"))
    made = loaded(pair.certificate)
    made.verify_directly_issued_by(loaded(authority.pair.certificate))
    names = {kind: [one.value for one in made.subject.get_attributes_for_oid(kind)] for kind in
             (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)}  # fmt: skip
    assert list(names.values()) == [["somebody"], ["system:masters", "others"]]


def test_a_server_certificate_has_names_and_addresses(authority):
    pair = authority.issue("server", "server", hosts=("127.0.0.1", "kubernetes.default"))
    names = loaded(pair.certificate).extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes.default"]


def test_keys_and_kubeconfigs_are_read_by_their_owner_alone(authority, tmp_path):
    config = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", "ca", {"token": "secret"})
    for path in (authority.pair.key, authority.issue("a", "a").key, key_pair(tmp_path, "tokens").key, config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_token_key_and_its_public_half_belong_together(tmp_path):
    pair = key_pair(tmp_path, "tokens")
    private = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert serialization.load_pem_public_key(pair.certificate.read_bytes()) == private.public_key()


def test_a_kubeconfig_is_yaml_with_one_context_and_holds_all_it_needs(tmp_path):
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", "ca", {"token": "secret"}, "shop")
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == config["contexts"][0]["name"]
    assert config["contexts"][0]["context"]["namespace"] == "shop"
    assert "certificate-authority-data" in config["clusters"][0]["cluster"]


def api_of(authority: Authority, server: str, tmp_path: Path) -> Api:
    return Api(write_kubeconfig(tmp_path / "c", server, authority.pair.certificate.read_text(), {"token": "abc"}))


def test_a_call_carries_the_login_and_gives_the_answer(authority, server, tmp_path):
    assert api_of(authority, server, tmp_path)("GET", "/fine") == {"said": "Bearer abc"}


def test_a_refusal_has_its_code_and_the_servers_words(authority, server, tmp_path):
    api = api_of(authority, server, tmp_path)
    with pytest.raises(Refused, match="409: it is taken") as refused:
        api("GET", "/status")
    assert refused.value.code == 409
    with pytest.raises(Refused, match="502: <html>nobody home"):
        api("GET", "/else")


def test_what_is_not_there_yet_is_none_and_other_refusals_are_not_swallowed(authority, server, tmp_path):
    api = api_of(authority, server, tmp_path)
    assert api.found("/status") is None
    with pytest.raises(Refused):
        api.found("/else")
    (unused,) = free_ports(1)
    assert api_of(authority, f"https://127.0.0.1:{unused}", tmp_path).found("/fine") is None


def test_a_server_of_another_authority_is_not_trusted(server, tmp_path):
    other = Authority(tmp_path / "other")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        api_of(other, server, tmp_path)("GET", "/fine")


def test_waiting_ends_with_what_was_waited_for():
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="waited 0 s for a miracle"):
        until(lambda: None, "a miracle", 0.2)
    assert time.monotonic() - began < 5
    answers = iter([None, "", "yes"])
    assert until(lambda: next(answers), "an answer", 5) == "yes"


def test_kubectl_takes_objects_and_tells_what_failed(authority, tmp_path):
    (unused,) = free_ports(1)
    trusted = authority.pair.certificate.read_text()
    config = write_kubeconfig(tmp_path / "c", f"https://127.0.0.1:{unused}", trusted, {"token": "abc"})
    kubectl = Kubectl(config)
    shown = kubectl.ok("create", "configmap", "a", "--from-literal=b=c", "--dry-run=client", "-o", "json")
    assert json.loads(shown)["data"] == {"b": "c"}
    with pytest.raises(AssertionError, match=r"kubectl get pods .*refused"):
        kubectl.ok("get", "pods", "--request-timeout=1s")


def test_free_ports_are_all_different():
    assert len(set(free_ports(20))) == 20


def test_a_process_that_is_gone_has_no_start():
    import subprocess

    child = subprocess.Popen(["true"])
    child.wait()
    assert start_time(child.pid) is None
