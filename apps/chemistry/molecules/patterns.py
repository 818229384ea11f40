"""Tree-shaped SMARTS without rings and recursion, asked of all atoms of many molecules at once."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from apps.chemistry.molecules.tables import compiled
from core.errors import DataError

MAX_QUESTION, MAX_NODE = 128, 8
SINGLE, DOUBLE, TRIPLE, AROMATIC = 1, 2, 4, 8
# A bond that is not written is a single or an aromatic one.
_BONDS = {"": SINGLE | AROMATIC, "-": SINGLE, "=": DOUBLE, "#": TRIPLE, ":": AROMATIC}
_TOKEN = re.compile(r"([-=#:]?)(\[[^\]]*\]|Cl|Br|[A-Za-z])|([()])")
_PRIMITIVE = re.compile(r"!|&|#\d+|Cl|Br|H\d*|X\d+|[+-]\d*|[ACNOPSFIBacnops]")
_ELEMENT = {"B": 5, "C": 6, "N": 7, "O": 8, "F": 9, "P": 15, "S": 16, "Cl": 17, "Br": 35, "I": 53}


@dataclass(frozen=True)
class AtomGraph:
    """Atoms and their neighbours. Shape letters: A atoms, E directed edges, sorted by source."""

    element: np.ndarray
    """int [A]"""
    charge: np.ndarray
    """int [A]"""
    hydrogen: np.ndarray
    """int [A]: all hydrogen atoms bound to it."""
    connections: np.ndarray
    """int [A]: all atoms bound to it."""
    aromatic: np.ndarray
    """bool [A]"""
    first: np.ndarray
    """int64 [A + 1]: edges of atom i are those from `first[i]` to `first[i + 1]`."""
    neighbour: np.ndarray
    """int32 [E]"""
    bond: np.ndarray
    """uint8 [E]: `SINGLE`, `DOUBLE`, `TRIPLE` or `AROMATIC`; 0 for any other."""


class Patterns:
    """Patterns in an order of precedence.

    Parameters
    ----------
    smarts : sequence of str
        Trees of atoms: elements, ``#n``, ``A``, ``a``, ``Hn``, ``Xn`` and charges, joined by
        ``!``, ``&``, ``,`` and ``;``; bonds ``-``, ``=``, ``#`` and ``:``.

    Raises
    ------
    DataError
        If a pattern holds something else.
    """

    def __init__(self, smarts: Sequence[str]):
        self.questions: list[str] = []
        self._ask: list[Callable[[AtomGraph], np.ndarray]] = []
        nodes: list[tuple[int, int, int]] = []
        first = [0]
        for text in smarts:
            nodes += self._nodes(text)
            first.append(len(nodes))
        self.node_first = np.array(first, dtype=np.int32)
        self.nodes = np.array(nodes, dtype=np.int32).reshape(-1, 3)

    def _nodes(self, text: str) -> list[tuple[int, int, int]]:
        """Return question, bonds and parent of each node of one pattern."""
        nodes: list[tuple[int, int, int]] = []
        last, branches, at = -1, [], 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None or len(nodes) == MAX_NODE:
                raise DataError(f"pattern {text!r} cannot be read from {text[at:]!r} on")
            at = token.end()
            bond, atom, parenthesis = token.groups()
            if parenthesis == "(":
                branches.append(last)
            elif parenthesis == ")":
                last = branches.pop()
            else:
                nodes.append((self._question(atom.strip("[]")), _BONDS[bond], last))
                last = len(nodes) - 1
        return nodes

    def _question(self, text: str) -> int:
        if text not in self.questions:
            self.questions.append(text)
            self._ask.append(_question(text))
        if len(self.questions) > MAX_QUESTION:
            raise DataError(f"patterns ask more than {MAX_QUESTION} questions of an atom")
        return self.questions.index(text)

    def first_match(self, graph: AtomGraph) -> np.ndarray:
        """Return int32 [A]: the first pattern that begins at the atom, -1 where none does.

        Checked against: RDKit's substructure search, in the tests.
        """
        kernels = compiled()
        assert kernels is not None
        n = graph.element.size
        mask = np.zeros((n, 2), dtype=np.uint64)
        for k, ask in enumerate(self._ask):
            mask[:, k // 64] |= ask(graph).astype(np.uint64) << np.uint64(k % 64)
        out = np.empty(n, dtype=np.int32)
        arrays = (graph.first, graph.neighbour, graph.bond, mask)
        kernels.tessera_first_match(
            n, *(array.ctypes.data for array in arrays), len(self.node_first) - 1,
            self.node_first.ctypes.data, self.nodes.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        return out


Ask = Callable[[AtomGraph], np.ndarray]


def _question(text: str) -> Ask:
    """Return what a bracketed atom asks: bool [A] of a graph."""
    return _all([_any([_product(part) for part in low.split(",")]) for low in text.split(";")])


def _all(asks: Sequence[Ask]) -> Ask:
    return lambda graph: reduce(np.logical_and, [ask(graph) for ask in asks])


def _any(asks: Sequence[Ask]) -> Ask:
    return lambda graph: reduce(np.logical_or, [ask(graph) for ask in asks])


def _product(text: str) -> Ask:
    asks: list[Ask] = []
    at, negated = 0, False
    while at < len(text):
        token = _PRIMITIVE.match(text, at)
        if token is None:
            raise DataError(f"atom [{text}] of a pattern cannot be read from {text[at:]!r} on")
        at = token.end()
        if token[0] == "!":
            negated = True
        elif token[0] != "&":
            ask = _primitive(token[0])
            asks.append(_not(ask) if negated else ask)
            negated = False
    return _all(asks)


def _not(ask: Ask) -> Ask:
    return lambda graph: ~ask(graph)


def _primitive(text: str) -> Ask:
    kind, number = text[0], text[1:]
    if kind == "#":
        return lambda graph: graph.element == int(number)
    if kind in "+-":
        charge = int(number or 1) * (1 if kind == "+" else -1)
        return lambda graph: graph.charge == charge
    if kind == "H":
        return lambda graph: graph.hydrogen == int(number or 1)
    if kind == "X":
        return lambda graph: graph.connections == int(number)
    if text == "A":
        return lambda graph: ~graph.aromatic
    if text == "a":
        return lambda graph: graph.aromatic
    element = _ELEMENT[text.capitalize()]
    if text.islower():
        return lambda graph: (graph.element == element) & graph.aromatic
    return lambda graph: (graph.element == element) & ~graph.aromatic
