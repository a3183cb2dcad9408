"""The border's parts that are not BentoML endpoints."""
