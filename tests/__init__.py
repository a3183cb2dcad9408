"""A package, so that benchmarks find `tests.forge` before any other folder named tests."""
