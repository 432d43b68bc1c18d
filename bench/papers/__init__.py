"""Experiments of papers whose methods are implemented here, done again at the size of this machine."""
