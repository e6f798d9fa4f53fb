"""How checkpoints are kept: content-addressed objects in packs, named by manifests. No Django: outside programs use it too."""
