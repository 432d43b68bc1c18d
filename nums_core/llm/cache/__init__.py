"""The KV cache: what a model has computed of each sequence, in pages, and policies that say what of it is kept.

    page        which pages are free, who shares them
    kv_cache    sequences and their pages: allocate, extend, fork, free; the arrays of a step
    spec        what is static about a cache
    batch       a step as small arrays, and taken apart for the kernel
    attend      attention that reads and writes the cache: one update of a layer's states
    kernel      that update: append, attend, score, evict
    policy      what a policy must say; full, window, h2o, tova say it
    rotation    rotary positions, made once a step
    quantized   how a vector is stored: 32, 16, 8 or 4 bits
"""
