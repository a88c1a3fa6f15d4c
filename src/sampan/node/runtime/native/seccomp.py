"""RuntimeDefault: what a container may not ask of the kernel.

Everything is allowed but the calls that reach beyond the container; those fail with EPERM (ENOSYS
where programs fall back on older calls). Which calls these are is common ground of all container
engines; a call that a capability stands for is allowed where the container has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.obj import Body

_EPERM, _ENOSYS = 1, 38
_ALWAYS = (
    "acct", "add_key", "bdflush", "create_module", "delete_module", "finit_module",
    "get_kernel_syms", "get_mempolicy", "init_module", "io_uring_enter", "io_uring_register",
    "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl",
    "lookup_dcookie", "mbind", "migrate_pages", "move_pages", "nfsservctl", "perf_event_open",
    "query_module", "request_key", "set_mempolicy", "swapoff", "swapon", "sysfs", "_sysctl",
    "userfaultfd", "uselib", "ustat", "vm86", "vm86old",
)  # fmt: skip
_BY_CAPABILITY = {
    "CAP_SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "mount",
        "mount_setattr", "move_mount", "open_tree", "pivot_root", "quotactl", "quotactl_fd",
        "setns", "sethostname", "setdomainname", "umount", "umount2", "unshare",
    ),
    "CAP_SYS_MODULE": ("delete_module", "init_module", "finit_module"),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_PTRACE": ("kcmp",),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_BPF": ("bpf",),
    "CAP_SYS_CHROOT": ("chroot",),
}  # fmt: skip
_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEW*: clone with any of them needs CAP_SYS_ADMIN


def runtime_default(capabilities: Iterable[str]) -> Body:
    """The OCI seccomp profile for a container with these capabilities."""
    held = set(capabilities)
    allowed = {c for cap, calls in _BY_CAPABILITY.items() if cap in held for c in calls}
    guarded = {c for calls in _BY_CAPABILITY.values() for c in calls}
    denied = sorted((set(_ALWAYS) | guarded) - allowed)
    rules: list[Body] = [
        {"names": denied, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
    ]
    if "CAP_SYS_ADMIN" not in held:
        rules += [
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *(
                {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM,
                 "args": [{"index": 0, "value": flag, "valueTwo": flag,
                           "op": "SCMP_CMP_MASKED_EQ"}]}
                for flag in _flags(_NAMESPACE_FLAGS)
            ),
        ]  # fmt: skip
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }


def _flags(mask: int) -> list[int]:
    return [1 << bit for bit in range(32) if mask >> bit & 1]
