"""Cluster DNS: what the cluster's names are (``zone``, pure), how it is said (``message``,
``responder``, pure), and the sockets and watches around it. Nothing here decides about services."""
