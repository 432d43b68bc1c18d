"""Judging language models: how well they predict, remember and choose.

    scorer       what the measures ask of a model: the log-probability of each token
    perplexity   of a text, in windows
    recall       whether a word planted far back is remembered
    choices      multiple choice by log-likelihood, in lm-eval's requests
    harness      our models inside lm-eval itself (imported only there)
"""
