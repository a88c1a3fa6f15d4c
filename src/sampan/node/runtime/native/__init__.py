"""The native runtime: crun or runc, conmon, a pause per pod, overlayfs and netlink."""
