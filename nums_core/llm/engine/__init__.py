"""The engine: many requests decoded together over one paged cache.

    sequence   one request: its tokens, and how far they are computed
    prefix     which pages already hold the keys and values of a prompt's beginning
    batcher    who computes how many tokens in the next step
    runner     a step as a replayed plan: tokens in, logits out
    engine     requests in, text out: batcher, runner and sampler in a loop
"""
