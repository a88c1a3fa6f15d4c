"""Bootstrap roles around CertificateSigningRequests, in the shape of ``bootstrap_roles``."""

from __future__ import annotations

from sampan.api.obj import Body
from sampan.apiserver.bootstrap_rules import rule

_GROUP = "certificates.k8s.io"
_REQUESTS = "certificatesigningrequests"
_CLIENT, _KUBELET, _SERVING, _LEGACY = (
    f"kubernetes.io/{name}"
    for name in (
        "kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving",
        "legacy-unknown",
    )
)  # fmt: skip


NODE: tuple[Body, ...] = (rule("create get list watch", _GROUP, _REQUESTS),)

CLUSTER: dict[str, tuple[Body, ...]] = {
    "system:node-bootstrapper": NODE,
    **{
        f"system:certificates.k8s.io:{_REQUESTS}:{sub}": (
            rule("create", _GROUP, f"{_REQUESTS}/{sub}"),
        )
        for sub in ("nodeclient", "selfnodeclient")
    },
    **{
        f"system:certificates.k8s.io:{signer.partition('/')[2]}-approver": (
            rule("approve", _GROUP, "signers", signer),
        )
        for signer in (_CLIENT, _KUBELET, _SERVING, _LEGACY)
    },
}

CONTROLLER: tuple[Body, ...] = (
    rule("delete get list watch", _GROUP, _REQUESTS),
    rule("update", _GROUP, f"{_REQUESTS}/approval {_REQUESTS}/status"),
    rule("approve", _GROUP, "signers", _KUBELET),
    rule("sign", _GROUP, "signers", _CLIENT, _KUBELET, _SERVING, _LEGACY),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
)
