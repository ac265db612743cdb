"""`orchrun`: the OCI command line over the runtime, as podman, containerd, Docker and people call it."""
