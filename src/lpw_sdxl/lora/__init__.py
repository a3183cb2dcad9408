"""LoRAs: what is in a file, what is installed, and how it changes a model."""
