"""NetworkPolicy: what the policies say (``model``, ``judge``) and what a node's kernel must hold
for it (``rules``), all pure, and the part that keeps kernels so (``enforcer``)."""
