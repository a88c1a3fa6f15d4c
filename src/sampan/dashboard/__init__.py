"""The web page (later); speaks only the public API."""
