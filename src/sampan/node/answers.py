"""What a pod's machine is told of an instruction that broke off in a way nobody foresaw.

A machine waits for the answer to each of its instructions: one that never comes is a container that
never starts, or a pod that is Terminating for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.node import stimuli as st

_ANSWERS: dict[type, Callable[[Any, str], st.Stimulus]] = {
    st.MountVolumes: lambda _, why: st.VolumesFailed(f"Unable to attach or mount volumes: {why}"),
    st.RunSandbox: lambda what, why: st.SandboxFailed(what.id, why),
    st.PullImage: lambda what, why: st.ImageFailed(
        what.container, what.ref, "ImageInspectError", why
    ),
    st.CreateContainer: lambda what, why: st.CreateFailed(
        what.container, what.id, "CreateContainerError", why
    ),
    st.StartContainer: lambda what, why: st.StartFailed(what.container, what.id, why),
    st.RunPostStart: lambda what, why: st.HookDone(what.container, what.id, why),
    st.Resize: lambda w, m: st.Resized(w.containers, w.resources, m),
    st.TearDown: lambda _, why: st.TearDownFailed(why),
}


def failed(what: st.Instruction, failure: BaseException) -> st.Stimulus | None:
    """The answer to *what*; None for what cannot fail, but has to be done again until it is."""
    answer = _ANSWERS.get(type(what))
    return answer(what, str(failure) or type(failure).__name__) if answer is not None else None
