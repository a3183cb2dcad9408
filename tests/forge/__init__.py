"""Random, seeded checkpoints and LoRA files, for tests and benchmarks; no part of the product."""
