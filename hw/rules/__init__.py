"""What each PyTorch op asks of a machine."""

from hw.rules.registry import known_ops, rule
from hw.rules.work import Task, tasks_of

__all__ = ["Task", "known_ops", "rule", "tasks_of"]
