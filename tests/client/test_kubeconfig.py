"""Merging into the user's kubeconfig loses nothing of theirs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from sampan.client import kubeconfig

OURS = kubeconfig.make("sampan", "https://127.9.9.9:6443", ca=b"ca", certificate=b"c", key=b"k")
THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "current-context": "prod",
}


def read(path: Path) -> dict[str, object]:
    config: dict[str, object] = yaml.safe_load(path.read_text())
    return config


def test_merge_and_remove_keep_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(THEIRS))
    kubeconfig.merge(path, OURS)
    merged = read(path)
    assert merged["current-context"] == "sampan"
    assert [c["name"] for c in merged["contexts"]] == ["prod", "sampan"]  # type: ignore[attr-defined]
    assert merged["preferences"] == {"colors": True}
    kubeconfig.remove(path, "sampan")
    assert read(path) == {**THEIRS, "current-context": ""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["config"]


def test_merging_twice_leaves_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "config"
    kubeconfig.merge(path, OURS)
    kubeconfig.merge(path, OURS)
    assert len(read(path)["users"]) == 1  # type: ignore[arg-type]
    kubeconfig.remove(path, "sampan")
    assert not path.exists()


@pytest.mark.parametrize("text", ["{", "- a list", "kind: Pod"])
def test_a_file_that_is_no_kubeconfig_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(kubeconfig.Unreadable):
        kubeconfig.merge(path, OURS)
    assert path.read_text() == text


def test_the_users_file_is_kubectls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", f":{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert kubeconfig.user_path() == tmp_path / "a"
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubeconfig.user_path() == tmp_path / ".kube" / "config"
