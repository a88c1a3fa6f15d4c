"""Images of a cluster's nodes: names, archives, unpacked layers. Knows no containers."""
