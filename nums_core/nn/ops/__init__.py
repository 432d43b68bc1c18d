"""Fused operations of neural networks: NumPy kernels on whole blocks, each with its derivative."""
