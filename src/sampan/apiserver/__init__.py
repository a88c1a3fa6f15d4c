"""The API server: HTTP front, endpoint pipeline, watch, discovery, authn, authz, admission."""
