"""Bootstrap roles around CertificateSigningRequests, in the shape of ``bootstrap_roles``."""

from __future__ import annotations

from sampan.api.obj import Body

_GROUP = "certificates.k8s.io"
_REQUESTS = "certificatesigningrequests"
_CLIENT, _KUBELET, _SERVING, _LEGACY = (
    f"kubernetes.io/{name}"
    for name in (
        "kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving",
        "legacy-unknown",
    )
)  # fmt: skip


def _rule(verbs: str, resources: str, *names: str, group: str = _GROUP) -> Body:
    rule: Body = {
        "verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()
    }  # fmt: skip
    if names:
        rule["resourceNames"] = [*names]
    return rule


NODE: tuple[Body, ...] = (_rule("create get list watch", _REQUESTS),)

CLUSTER: dict[str, tuple[Body, ...]] = {
    "system:node-bootstrapper": NODE,
    **{
        f"system:certificates.k8s.io:{_REQUESTS}:{sub}": (_rule("create", f"{_REQUESTS}/{sub}"),)
        for sub in ("nodeclient", "selfnodeclient")
    },
    **{
        f"system:certificates.k8s.io:{signer.partition('/')[2]}-approver": (
            _rule("approve", "signers", signer),
        )
        for signer in (_CLIENT, _KUBELET, _SERVING, _LEGACY)
    },
}

CONTROLLER: tuple[Body, ...] = (
    _rule("delete get list watch", _REQUESTS),
    _rule("update", f"{_REQUESTS}/approval {_REQUESTS}/status"),
    _rule("approve", "signers", _KUBELET),
    _rule("sign", "signers", _CLIENT, _KUBELET, _SERVING, _LEGACY),
    _rule("create", "subjectaccessreviews", group="authorization.k8s.io"),
)
