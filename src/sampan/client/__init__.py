"""Client, transports, caches, kubeconfig: the only way components see the cluster."""
