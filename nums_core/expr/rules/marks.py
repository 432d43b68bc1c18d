"""Marks (`expr.marks`) are taken off before anything is planned."""

from __future__ import annotations

from nums_core.expr.node import Expr


def operand(node: Expr) -> Expr:
    return node.args[0]


def result(node: Expr) -> Expr:
    return node.args[0].args[node.params[0]]


RULES = [("argument", operand), ("stop", operand), ("kept", operand), ("part", result)]
