"""A network of pairs: drugs from their graphs, proteins from their residues, the grid decoded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import core
from apps.chemistry.affinity.pairs import PairTable
from apps.chemistry.fitting import one_cycle
from apps.chemistry.molecules import (
    N_ATOM_FEATURE,
    N_EDGE_FEATURE,
    MolGraph,
    featurise_many,
    mol_from_smiles,
)
from apps.chemistry.network import BindingNetwork, MolBatch, pack
from apps.chemistry.network.layers import to_molecules
from apps.chemistry.network.products import by_rows
from apps.lab.fit import fit

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
_NUMBER = {letter: i for i, letter in enumerate(RESIDUES)}
_OTHER, _GAP = len(RESIDUES), len(RESIDUES) + 1
WINDOW = 9  # residues that a motif spans; a strand or two turns of a helix
D_RESIDUE, N_MOTIF, D_PAIR, D_HIDDEN, N_LAYER = 12, 96, 64, 64, 3
N_EPOCH = 24
_N_DRUG, _N_TARGET = 64, 48  # of a step: the sides of the grid that it decodes
LEARNING_RATE, WEIGHT_DECAY, EMA_DECAY, WARMUP = 2e-3, 0.05, 0.98, 0.2


class Residues(NamedTuple):
    """Proteins one after the other, a gap before each and at the end: no window spans two."""

    code: Tensor
    """int64 [R + WINDOW - 1]: residue by number, `_GAP` in the gaps."""
    protein: Tensor
    """int64 [R]: protein of the window that starts here."""
    ptr: Tensor
    """int64 [P + 1]: first place of each protein, then R."""

    @classmethod
    def of(cls, sequences: Sequence[str]) -> "Residues":
        """Encode sequences; letters that are no residue share one number."""
        gap = [_GAP] * (WINDOW - 1)
        codes = [gap + [_NUMBER.get(letter, _OTHER) for letter in text] for text in sequences]
        size = np.array([len(code) for code in codes])
        return cls(
            torch.tensor([number for code in codes for number in code] + gap),
            torch.from_numpy(np.repeat(np.arange(len(codes)), size)),
            torch.from_numpy(np.concatenate([[0], np.cumsum(size)])),
        )


class SequenceEncoder(nn.Module):
    """A protein as counts of learned motifs: what its windows show, summed up.

    A motif is a detector ``relu(W window + b)`` over `WINDOW` residues, each a learned vector; a
    row holds the logarithms of its counts (1 + count) and its means over the windows.
    """

    def __init__(self, d_out: int, *, spec: core.LayerSpec, generator: torch.Generator):
        super().__init__()
        first = torch.randn(len(RESIDUES) + 2, D_RESIDUE, generator=generator)
        first[_GAP] = 0.0
        self.residue = nn.Parameter(first)
        self.motif = core.build_linear(WINDOW * D_RESIDUE, N_MOTIF, spec, generator=generator)
        self.norm = nn.BatchNorm1d(2 * N_MOTIF)
        self.out = core.build_linear(2 * N_MOTIF, d_out, spec, generator=generator)

    def forward(self, proteins: Residues) -> Tensor:
        """Return float32 [protein, d_out]."""
        code = self.residue.index_select(0, proteins.code)
        window = code.unfold(0, WINDOW, 1).reshape(proteins.protein.shape[0], -1)
        order = to_molecules(proteins.protein, proteins.ptr)
        count = core.pass_messages(by_rows(self.motif, window), order, activation="relu")
        n_window = (proteins.ptr[1:] - proteins.ptr[:-1]).to(count.dtype)[:, None]
        row = self.norm(torch.cat([torch.log1p(count), count / n_window], dim=1))
        out: Tensor = by_rows(self.out, row)
        return out


class PairBatch(NamedTuple):
    """The grid of some drugs with some proteins. Shape letters: D drugs, P proteins."""

    drugs: MolBatch
    proteins: Residues
    y: Tensor
    """float32 [D, P], 0 where nothing is known."""
    weight: Tensor
    """float32 [D, P]: 1 where a pair trains, else 0."""


class PairNetwork(nn.Module):
    """Affinity of every drug of a batch with every protein: each encoded once, the grid decoded.

    ``value[d, p] = w relu(u_d + v_p) + u_d A v_p + b``, in units of `scale` around `mean`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, seed: int, spec: core.LayerSpec | None = None):
        super().__init__()
        spec, generator = spec or core.LayerSpec(), torch.Generator().manual_seed(seed)
        self.drug = BindingNetwork(
            N_ATOM_FEATURE, N_EDGE_FEATURE, n_task=D_PAIR, d_hidden=D_HIDDEN, n_layer=N_LAYER,
            spec=spec, generator=generator,
        )  # fmt: skip
        self.protein = SequenceEncoder(D_PAIR, spec=spec, generator=generator)
        self.cross = core.build_linear(D_PAIR, D_PAIR, spec, generator=generator, bias=False)
        self.out = core.build_linear(D_PAIR, 1, core.LayerSpec(), generator=generator)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def decode(self, drug: Tensor, protein: Tensor) -> Tensor:
        """Return scaled values, float32 [D, P], from float32 [D, D_PAIR] and [P, D_PAIR]."""
        both = torch.relu(drug[:, None] + protein[None])
        product = by_rows(self.cross, drug) @ protein.T / D_PAIR
        return self.out(both.reshape(-1, D_PAIR)).reshape(product.shape) + product

    def loss(self, batch: PairBatch) -> Tensor:
        """Return the mean squared error of the known pairs, in scaled units."""
        out = self.decode(self.drug(batch.drugs), self.protein(batch.proteins))
        error = (out - (batch.y - self.mean) / self.scale) * batch.weight
        return (error * error).sum() / batch.weight.sum().clamp(min=1.0)

    @torch.no_grad()
    def predict(self, graphs: Sequence[MolGraph], sequences: Sequence[str]) -> np.ndarray:
        """Return float64 [drug, protein] in the unit of the data."""
        drugs = [self.drug(pack(graphs[i : i + 256])) for i in range(0, len(graphs), 256)]
        proteins = [
            self.protein(Residues.of(sequences[i : i + _N_TARGET]))
            for i in range(0, len(sequences), _N_TARGET)
        ]
        rows = [self.decode(drug, torch.cat(proteins)) for drug in drugs]
        return (torch.cat(rows) * self.scale + self.mean).double().numpy()


def network_answer(table: PairTable, train: np.ndarray, *, seed: int) -> np.ndarray:
    """Train a network on the pairs of `train` (bool [D, T]) and return every pair [D, T].

    Each step draws drugs and distinct sequences and decodes their grid; entries of one sequence
    share its code, so that a pair trains on their mean.
    """
    graphs = featurise_many([mol_from_smiles(text) for text in table.smiles])
    sequences, number = np.unique(np.array(table.sequence, dtype=object), return_inverse=True)
    total, count = np.zeros((2, len(graphs), len(sequences)))
    np.add.at(total.T, number, np.where(train, table.value, 0.0).T)
    np.add.at(count.T, number, train.T.astype(float))
    value = total / np.maximum(count, 1.0)
    drugs, proteins = (np.nonzero(count.any(axis=axis))[0] for axis in (1, 0))
    model = PairNetwork(seed=seed)
    model.mean.fill_(table.value[train].mean())
    model.scale.fill_(max(table.value[train].std(), 1e-6))
    n_step = max(-(-len(proteins) // _N_TARGET), -(-len(drugs) // _N_DRUG))

    def batches(epoch: int) -> Iterator[PairBatch]:
        rng = np.random.default_rng([seed, epoch])
        sides = [_parts(side, n, n_step, rng) for side, n in ((drugs, _N_DRUG),
                                                              (proteins, _N_TARGET))]  # fmt: skip
        for rows, columns in zip(*sides, strict=True):
            place = np.ix_(rows, columns)
            yield PairBatch(
                pack([graphs[i] for i in rows]),
                Residues.of([sequences[i] for i in columns]),
                torch.from_numpy(value[place]).float(),
                torch.from_numpy(count[place] > 0).float(),
            )

    fit(
        model=model,
        optimizer=torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        ),
        batches=batches,
        loss=lambda _, batch: model.loss(batch),
        n_epoch=N_EPOCH,
        item_count=lambda batch: batch.y.numel(),
        schedule=lambda progress: one_cycle(progress, WARMUP),
        steps_per_epoch=n_step,
        ema_decay=EMA_DECAY,
        label="pair network",
    )
    return model.eval().predict(graphs, list(sequences))[:, number]


def _parts(side: np.ndarray, size: int, n_part: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return `n_part` draws of at most `size` members, each member once before any twice."""
    size = min(size, len(side))
    n_round = -(-n_part * size // len(side))
    order = np.concatenate([rng.permutation(side) for _ in range(n_round)])
    return [np.unique(order[i * size : (i + 1) * size]) for i in range(n_part)]
