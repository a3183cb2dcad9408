"""Our image on RunPod: its build, its start, and what it finds on a volume."""
