"""Lowering rules of custom operations: op `linalg.qr` is the row `qr` of `expr/lowering/linalg.py`."""
