"""Pod network by netlink, in the node's own namespace."""
