"""The load harness: `python -m perf`. Callers, simulated providers and the server in processes of their own."""
