"""LoRA files: what is in one, whether it fits SDXL, and what it does to the weights."""
