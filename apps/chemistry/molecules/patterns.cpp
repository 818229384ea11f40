// Small tree-shaped patterns of atoms and bonds, looked for at every atom of many molecules.
//
// What a pattern asks of an atom is one bit of that atom's mask, worked out beforehand; a node of a
// pattern is such a bit, the kinds of bond that may lead to it, and the node that it hangs from.

#include <cstdint>

namespace {

constexpr int MAX_NODE = 8;

struct Graph {
  const int64_t* first;  // of each atom's neighbours
  const int32_t* neighbour;
  const uint8_t* bond;
  const uint64_t* mask;  // two words per atom
};

struct Node {
  int32_t question, bonds, parent;
};

inline bool fits(const Graph& graph, int64_t atom, int32_t question) {
  return graph.mask[2 * atom + question / 64] >> question % 64 & 1;
}

// Finds atoms for the nodes from `k` on; those before have theirs.
bool matches(const Graph& graph, const Node* nodes, int n_node, int k, int64_t* found) {
  if (k == n_node) return true;
  const int64_t from = found[nodes[k].parent];
  for (int64_t e = graph.first[from]; e < graph.first[from + 1]; ++e) {
    const int64_t atom = graph.neighbour[e];
    if (!(graph.bond[e] & nodes[k].bonds) || !fits(graph, atom, nodes[k].question)) continue;
    bool is_new = true;
    for (int i = 0; i < k; ++i) is_new &= found[i] != atom;
    if (!is_new) continue;
    found[k] = atom;
    if (matches(graph, nodes, n_node, k + 1, found)) return true;
  }
  return false;
}

}  // namespace

// first_match [n_atom]: number of the first pattern whose first node may be the atom, -1 without one.
// The nodes of pattern p are those from node_first[p]; none has more than 8.
extern "C" void tessera_first_match(int64_t n_atom, const int64_t* first, const int32_t* neighbour,
                                    const uint8_t* bond, const uint64_t* mask, int32_t n_pattern,
                                    const int32_t* node_first, const int32_t* nodes,
                                    int32_t* first_match) {
  const Graph graph{first, neighbour, bond, mask};
  const Node* const all = reinterpret_cast<const Node*>(nodes);
  for (int64_t atom = 0; atom < n_atom; ++atom) {
    first_match[atom] = -1;
    for (int p = 0; p < n_pattern && first_match[atom] < 0; ++p) {
      const Node* const own = all + node_first[p];
      int64_t found[MAX_NODE] = {atom};
      if (fits(graph, atom, own->question) &&
          matches(graph, own, node_first[p + 1] - node_first[p], 1, found))
        first_match[atom] = p;
    }
  }
}
