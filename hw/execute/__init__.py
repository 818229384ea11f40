"""Planned work, run tile by tile: the proof that a plan computes, and moves what it says."""

from hw.execute.door import execute
from hw.execute.ledger import Execution
from hw.execute.rows import execute_attention

__all__ = ["Execution", "execute", "execute_attention"]
