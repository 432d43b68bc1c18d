"""From a task graph to a plan: layouts, LSHS and its rivals, the order of tasks, and what it all will cost."""

from nums_core.scheduler.planner import make_plan

__all__ = ["make_plan"]
