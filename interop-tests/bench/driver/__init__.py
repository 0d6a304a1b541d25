"""Benchmarks of durability: starts brokers, puts load on them, and prints tables."""
