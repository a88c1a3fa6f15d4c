"""A client certificate by ``kubectl certificate approve``, which the API then knows."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

from sampan.testing.e2e import Cluster
from sampan.testing.requests import key, pem, request

CLIENT = "kubernetes.io/kube-apiserver-client"


def test_a_user_comes_by_a_certificate(cluster: Cluster, tmp_path: Path) -> None:
    def ask(name: str) -> None:
        body = request(name, pem("jane", ["devs"]), CLIENT, ["client auth"],
                       expirationSeconds=86400)  # fmt: skip
        body |= {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def row(name: str) -> list[str]:
        return cluster.kubectl("get", "csr", name, "--no-headers").split()

    ask("jane")
    ask("joan")
    head = cluster.kubectl("get", "csr").splitlines()[0].split()
    assert head == ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"]
    assert row("jane")[2:] == [CLIENT, "kubernetes-admin", "24h", "Pending"]
    cluster.kubectl("certificate", "deny", "joan")
    assert row("joan")[-1] == "Denied"
    cluster.kubectl("certificate", "approve", "jane")
    cluster.until("issued", lambda: row("jane")[-1] == "Approved,Issued")
    text = cluster.kubectl("get", "csr", "jane", "-o", "jsonpath={.status.certificate}")
    (tmp_path / "crt").write_bytes(b64decode(text))
    (tmp_path / "key").write_bytes(key())
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {
        "client-certificate": str(tmp_path / "crt"), "client-key": str(tmp_path / "key"),
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    jane = Cluster(cluster.data_dir, tmp_path / "config", cluster.kubectl_binary)
    who = json.loads(jane.kubectl("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["username"] == "jane"
    assert who["groups"] == ["devs", "system:authenticated"]
    assert "forbidden" in jane.kubectl("get", "secrets", "-A", check=False)
    cluster.kubectl("delete", "csr", "jane", "joan")
