"""NumPy arrays that may be larger than a core, a GPU or a machine.

    import nums_core.array as np

    x = np.random.default_rng(0).normal(size=(10_000_000, 16))
    (x - x.mean(axis=0)).std(axis=0).compute()
"""

__version__ = "0.1.0"
