"""How checkpoints are kept: content-addressed objects in packs, named by manifests. No Django: others may use it."""
