"""The Runtime seam (a subset of CRI) and its implementations: native and fake."""
