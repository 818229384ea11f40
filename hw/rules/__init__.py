"""What each PyTorch op asks of a machine."""

from hw.rules.registry import known_ops, rule
from hw.rules.work import Task, join_optimizer, tasks_of

__all__ = ["Task", "join_optimizer", "known_ops", "rule", "tasks_of"]
