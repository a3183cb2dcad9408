"""BentoML's model store: entries, manifests, publication; knows nothing of what is in them."""
