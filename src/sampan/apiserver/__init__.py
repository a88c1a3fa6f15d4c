"""The API server: HTTP front, handler chain, the one endpoint pipeline, watch, discovery, authn, authz, admission."""
