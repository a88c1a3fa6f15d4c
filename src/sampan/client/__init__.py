"""Client, transports (http, local), caches with indexes, kubeconfig: the only way components see the cluster."""
