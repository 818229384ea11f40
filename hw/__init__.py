"""The tile machine: what running a PyTorch program costs, and on what machine."""

from hw.cost import CostReport, cost, cost_program
from hw.machine import Machine, load_machine, machine_names
from hw.op_cost import OpCost
from hw.program import Op, Program, TensorInfo
from hw.trace import trace

__all__ = [
    "CostReport",
    "Machine",
    "Op",
    "OpCost",
    "Program",
    "TensorInfo",
    "cost",
    "cost_program",
    "load_machine",
    "machine_names",
    "trace",
]
