"""The graph network: batches of molecules, its layers, the model."""

from apps.chemistry.network.batch import MolBatch, pack, pyg_data
from apps.chemistry.network.layers import EdgeMessageLayer, Readout
from apps.chemistry.network.model import BindingNetwork

__all__ = ["BindingNetwork", "EdgeMessageLayer", "MolBatch", "Readout", "pack", "pyg_data"]
