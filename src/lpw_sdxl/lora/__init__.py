"""LoRAs: what is in a file, which layers it changes, and by how much."""
