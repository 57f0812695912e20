"""Benchmarks, provider simulators and dated results. Uses public surfaces only."""
