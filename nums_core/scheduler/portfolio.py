"""The portfolio: place the whole graph by several complete policies and keep the best.

A greedy search looks one task ahead, and on products owner-computes beats it by its own objective; so every policy is
carried out on paper, and the one with the least F runs (ties: fewer bytes moved, then name). It is never worse than any
of its members, LSHS among them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nums_core.errors import ConfigError
from nums_core.scheduler import beam, lshs
from nums_core.scheduler.draft import Draft, Placed
from nums_core.scheduler.load import Loads, account
from nums_core.scheduler.moves import Moves, list_moves
from nums_core.scheduler.policies import RULES, Operands, Problem, Rule, complete
from nums_core.scheduler.sweep import Sweep

POLICIES = ("portfolio", "lshs", "beam", *RULES)

# LSHS goes task by task in Python, 10 to 20 us a step, up to this many tasks; beyond, in waves.
SEARCH_TASKS = 2000
# Smaller graphs are searched from several seeds: rows of (most tasks, seeds). Eight seeds find an F up to 14 % below the
# first one's on products, two up to 9 %, for 2 to 5 ms a seed at a hundred tasks.
SEEDS = ((120, 4), (600, 2))


@dataclass(frozen=True)
class Member:
    """One policy carried out on the whole graph. `penalty` is added to its F, in bytes."""

    name: str
    placed: Placed
    moves: Moves
    loads: Loads
    penalty: float = 0.0

    @property
    def rank(self) -> tuple[float, float, str]:
        return self.loads.F + self.penalty, self.loads.moved, self.name


def check_policy(policy: str) -> None:
    if policy not in POLICIES:
        near = difflib.get_close_matches(policy, POLICIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the policies are {', '.join(POLICIES)}"
        raise ConfigError(f"{policy!r} is not a scheduling policy; {hint}")


def choose(problem: Problem, policy: str = "portfolio", seed: int = 0,
           penalty: Callable[[Member], float] | None = None) -> tuple[Member, dict[str, float]]:
    """The best member, and F of every member in bytes. One member, "aligned", where no task leaves a choice.

    `penalty` tells what to add to the F of a member, for reasons that F does not know; members that could not win anyway
    are not asked.
    """
    check_policy(policy)
    best: Member | None = None
    drafts: dict[Draft, str] = {}
    scores: dict[str, float] = {}
    for name, rule in _rules(problem, policy, seed):
        draft = complete(problem, rule, list(drafts))
        if draft in drafts:  # another policy came to the same placement
            scores[name] = scores[drafts[draft]]
            continue
        member = _evaluate(problem, name if draft.choices else "aligned", draft)
        scores[member.name] = member.loads.F
        drafts[draft] = name
        if penalty is not None and (best is None or member.rank < best.rank):
            member = replace(member, penalty=penalty(member))
        if best is None or member.rank < best.rank:
            best = member
        if not draft.choices:
            break
    assert best is not None
    return best, scores


def _rules(problem: Problem, policy: str, seed: int) -> Iterator[tuple[str, Rule]]:
    """The members asked for, the searches last."""
    tasks, all_members = problem.graph.n_tasks, policy == "portfolio"
    for name, rule in RULES.items():
        if policy == name or (all_members and (name != "2.5d" or problem.layered)):
            yield name, rule
    if policy == "beam" or (all_members and tasks <= SEARCH_TASKS):
        yield "beam", _given(beam.Beam(problem, beam.width_for(tasks)).run())
    if policy == "lshs" or all_members:
        if tasks > SEARCH_TASKS:
            yield "lshs", Sweep(problem, seed)
            return
        for k in range(_seeds(tasks) if all_members else 1):
            yield f"lshs-{k + 1}" if k else "lshs", _given(_searched(problem, seed + k))


def _seeds(tasks: int) -> int:
    return next((n for most, n in SEEDS if tasks <= most), 1)


def _searched(problem: Problem, seed: int) -> np.ndarray:
    return lshs.search(problem.graph, problem.layout, seed=seed, pairing=problem.reduction_order, source="least").worker


def _given(found: np.ndarray) -> Rule:
    """A rule that gives the answer of one search."""
    def rule(problem: Problem, draft: Draft, ops: Operands) -> np.ndarray:
        return found[ops.family.start:ops.family.stop]
    return rule


def _evaluate(problem: Problem, name: str, draft: Draft) -> Member:
    placed = draft.finish()
    moves = list_moves(placed.graph, placed.worker, problem.cluster)
    return Member(name, placed, moves, account(placed.graph, placed.worker, moves, problem.cluster))
