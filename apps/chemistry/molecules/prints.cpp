// Fingerprints and sums over paths of many molecules at a time, with the very keys that RDKit gives.
//
// Molecules lie one after the other: `Mols` tells where atoms and bonds of each begin. Keys of a
// molecule come sorted; the r-th repeat of a key is key + r * STEP, so that counts become sets.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace {

constexpr uint64_t STEP = 0x9E3779B97F4A7C15;
constexpr int N_TORSION = 4, N_BOND = 5;  // atoms of a torsion, bonds of a subgraph
constexpr int CODE_BIT = 9, DISTANCE_BIT = 5, MAX_DISTANCE = 30;  // of atom pairs
constexpr uint32_t CODE_LIMIT = (1u << CODE_BIT) - 1;

struct Mols {
  int64_t n_mol;
  const int64_t *first_atom, *first_bond;
  const int32_t* element;
  const int32_t *begin, *end, *type;  // of bonds; atoms counted within the molecule
};

// The hash that boost has combined numbers by since its early days, in 32 bits.
inline void combine(uint32_t& seed, uint32_t value) {
  seed ^= value + 0x9e3779b9u + (seed << 6) + (seed >> 2);
}

struct Neighbour {
  int32_t atom, bond;
};

struct Mol {
  int n_atom, n_bond;
  const int32_t *element, *begin, *end, *type;
  int64_t offset;  // of its first atom
  std::vector<int32_t> first;  // of each atom's neighbours
  std::vector<Neighbour> neighbours;

  void take(const Mols& mols, int64_t i) {
    offset = mols.first_atom[i];
    const int64_t b = mols.first_bond[i];
    n_atom = int(mols.first_atom[i + 1] - offset);
    n_bond = int(mols.first_bond[i + 1] - b);
    element = mols.element + offset;
    begin = mols.begin + b, end = mols.end + b, type = mols.type + b;
    first.assign(n_atom + 1, 0);
    for (int k = 0; k < n_bond; ++k) ++first[begin[k] + 1], ++first[end[k] + 1];
    for (int a = 0; a < n_atom; ++a) first[a + 1] += first[a];
    neighbours.resize(2 * n_bond);
    std::vector<int32_t> next(first.begin(), first.end() - 1);
    for (int k = 0; k < n_bond; ++k) {
      neighbours[next[begin[k]]++] = {end[k], k};
      neighbours[next[end[k]]++] = {begin[k], k};
    }
    for (int a = 0; a < n_atom; ++a)
      std::sort(neighbours.begin() + first[a], neighbours.begin() + first[a + 1],
                [](Neighbour x, Neighbour y) { return x.atom < y.atom; });
  }
  template <class Step>
  void around(int atom, const Step& step) const {
    for (int k = first[atom]; k < first[atom + 1]; ++k) step(neighbours[k].atom, neighbours[k].bond);
  }
};

using Keys = std::vector<uint64_t>;

// Environments of growing radius about each atom. Of environments with the same bonds, the one that
// came first, or has the smallest number, stays; an atom whose environment went grows no further,
// and its neighbours see nought in its place.
void morgan(const Mol& mol, const uint32_t* invariant, int radius, Keys& keys) {
  const int n = mol.n_atom, n_word = (mol.n_bond + 63) / 64;
  std::vector<uint32_t> now(invariant + mol.offset, invariant + mol.offset + n), later(n);
  std::vector<uint64_t> known(size_t(n) * n_word), grown(known), kept;
  std::vector<char> dead(n);
  std::vector<std::pair<int32_t, uint32_t>> seen;
  std::vector<int> order;
  keys.insert(keys.end(), now.begin(), now.end());
  const auto same = [&](const uint64_t* a, const uint64_t* b) { return std::equal(a, a + n_word, b); };
  for (int layer = 0; layer < radius; ++layer) {
    order.clear();
    std::fill(later.begin(), later.end(), 0);
    for (int a = 0; a < n; ++a) {
      if (mol.first[a] == mol.first[a + 1]) dead[a] = 1;
      if (dead[a]) continue;
      uint64_t* bonds = &grown[size_t(a) * n_word];
      seen.clear();
      mol.around(a, [&](int other, int bond) {
        bonds[bond / 64] |= uint64_t(1) << bond % 64;
        for (int w = 0; w < n_word; ++w) bonds[w] |= known[size_t(other) * n_word + w];
        seen.emplace_back(mol.type[bond], now[other]);
      });
      std::sort(seen.begin(), seen.end());
      uint32_t number = layer;
      combine(number, now[a]);
      for (const auto& [type, value] : seen) {
        uint32_t pair = 0;
        combine(pair, type);
        combine(pair, value);
        combine(number, pair);
      }
      later[a] = number;
      order.push_back(a);
    }
    std::sort(order.begin(), order.end(), [&](int a, int b) {
      return later[a] != later[b] ? later[a] < later[b] : a < b;
    });
    for (int a : order) {
      const uint64_t* bonds = &grown[size_t(a) * n_word];
      for (size_t k = 0; k < kept.size() && !dead[a]; k += n_word) dead[a] = same(&kept[k], bonds);
      if (dead[a]) continue;
      keys.push_back(later[a]);
      kept.insert(kept.end(), bonds, bonds + n_word);
    }
    now.swap(later);
    known = grown;
  }
}

// Kinds of two atoms and the bonds between them, for every pair at most MAX_DISTANCE apart.
void atom_pairs(const Mol& mol, const uint32_t* code, Keys& keys) {
  const int n = mol.n_atom, n_word = (n + 63) / 64;
  std::vector<uint64_t> near(size_t(n) * n_word), wider;
  for (int a = 0; a < n; ++a) near[size_t(a) * n_word + a / 64] |= uint64_t(1) << a % 64;
  bool grows = true;
  for (uint64_t distance = 1; grows && distance <= MAX_DISTANCE; ++distance) {
    wider = near;
    grows = false;
    for (int a = 0; a < n; ++a) {
      uint64_t* row = &wider[size_t(a) * n_word];
      mol.around(a, [&](int other, int) {
        for (int w = 0; w < n_word; ++w) row[w] |= near[size_t(other) * n_word + w];
      });
      const uint64_t mine = code[mol.offset + a] % CODE_LIMIT;
      for (int w = 0; w < n_word; ++w) {
        uint64_t added = row[w] & ~near[size_t(a) * n_word + w];
        grows |= added != 0;
        for (; added; added &= added - 1) {
          const int b = w * 64 + __builtin_ctzll(added);
          if (b < a) continue;
          const uint64_t other = code[mol.offset + b] % CODE_LIMIT;
          keys.push_back(distance | std::min(mine, other) << DISTANCE_BIT |
                         std::max(mine, other) << (DISTANCE_BIT + CODE_BIT));
        }
      }
    }
    near.swap(wider);
  }
}

// Calls step(path, closed) for every path of n atoms: open ones once, with the lower end first, and
// those whose last atom is an earlier one. Of the ways through the same bonds the first counts, that
// from the lowest atom by the lowest neighbour. Hydrogen atoms have no part.
template <class Step>
void for_paths(const Mol& mol, int n, const Step& step) {
  std::array<int, 8> path;
  std::vector<std::array<int, 8>> rings;  // sorted bonds of the closed ones that were met
  std::array<int, 8> bonds{};
  const auto grow = [&](const auto& self, int size) -> void {
    const int last = path[size - 1];
    mol.around(last, [&](int other, int bond) {
      if (mol.element[other] == 1) return;
      const int* const found = std::find(path.data(), path.data() + size, other);
      const bool is_new = found == path.data() + size;
      if (!is_new && (size != n - 1 || size < 2 || other == path[size - 2])) return;
      path[size] = other;
      bonds[size - 1] = bond;
      if (size + 1 < n) return self(self, size + 1);
      if (is_new) {
        if (path[0] < other) step(path.data(), false);
        return;
      }
      std::array<int, 8> sorted{};
      std::copy(bonds.begin(), bonds.begin() + n - 1, sorted.begin());
      std::sort(sorted.begin(), sorted.begin() + n - 1);
      if (std::find(rings.begin(), rings.end(), sorted) != rings.end()) return;
      rings.push_back(sorted);
      step(path.data(), true);
    });
  };
  for (int a = 0; a < mol.n_atom; ++a) {
    if (mol.element[a] == 1) continue;
    path[0] = a;
    grow(grow, 1);
  }
}

// Kinds of four atoms in a row, read from the end with the smaller ones.
void torsions(const Mol& mol, const uint32_t* code, Keys& keys) {
  for_paths(mol, N_TORSION, [&](const int* path, bool) {
    std::array<uint32_t, N_TORSION> codes, turned;
    for (int i = 0; i < N_TORSION; ++i) {
      const bool is_end = i == 0 || i == N_TORSION - 1;
      codes[i] = code[mol.offset + path[i]] % CODE_LIMIT - (is_end ? 1 : 2);
    }
    std::reverse_copy(codes.begin(), codes.end(), turned.begin());
    const auto& first = turned < codes ? turned : codes;
    uint64_t key = 0;
    for (int i = 0; i < N_TORSION; ++i) key |= uint64_t(first[i]) << CODE_BIT * i;
    keys.push_back(key);
  });
}

// Connected sets of up to N_BOND bonds, branched or not. A bond counts by its type, its atoms and how
// many bonds of the set meet at each; the number of a set is that of its bonds in sorted order.
struct Subgraphs {
  static constexpr int MAX_DEGREE = N_BOND + 1;
  const Mol& mol;
  const uint32_t* kind;  // of atoms
  Keys& keys;
  std::vector<char> taken, degree;
  std::vector<uint32_t> hash;  // [bond][degree of one end][of the other], 0 where not known yet
  std::array<int, N_BOND> path;
  std::vector<int> touching, tried;  // stacks: each step of the recursion has its part on top
  int n_atom = 0;

  Subgraphs(const Mol& mol, const uint32_t* kind, Keys& keys)
      : mol(mol), kind(kind + mol.offset), keys(keys), taken(mol.n_bond), degree(mol.n_atom),
        hash(size_t(mol.n_bond) * MAX_DEGREE * MAX_DEGREE) {
    for (int bond = 0; bond < mol.n_bond; ++bond) {
      taken[bond] = 1;
      grow(bond, 0, 0, 0);
    }
  }

  uint32_t number(int bond) {
    int a = mol.begin[bond], b = mol.end[bond];
    if (kind[a] < kind[b] || (kind[a] == kind[b] && degree[a] < degree[b])) std::swap(a, b);
    uint32_t& known = hash[(size_t(bond) * MAX_DEGREE + degree[a]) * MAX_DEGREE + degree[b]];
    if (!known) {
      known = degree[a] + degree[b] - 2;
      for (uint32_t value : {uint32_t(mol.type[bond]), kind[a], uint32_t(degree[a]), kind[b],
                             uint32_t(degree[b])})
        combine(known, value);
    }
    return known;
  }

  void add(int bond, int step) {
    for (int atom : {mol.begin[bond], mol.end[bond]}) {
      n_atom += step > 0 ? degree[atom] == 0 : -(degree[atom] == 1);
      degree[atom] = char(degree[atom] + step);
    }
  }

  // Adds a bond to the `size` of the path; touching[first..last) are bonds that touch those.
  void grow(int bond, int size, size_t first, size_t last) {
    path[size++] = bond;
    add(bond, 1);
    std::array<uint32_t, N_BOND> numbers;
    for (int i = 0; i < size; ++i) numbers[i] = number(path[i]);
    uint32_t key = numbers[0];
    if (size > 1) {
      std::sort(numbers.begin(), numbers.begin() + size);
      key = 0;
      for (int i = 0; i < size; ++i) combine(key, numbers[i]);
      combine(key, n_atom);
    }
    keys.push_back(key);
    if (size < N_BOND) {
      const size_t base = touching.size(), before = tried.size();
      for (size_t k = first; k < last; ++k)
        if (const int other = touching[k]; !taken[other]) touching.push_back(other);
      for (int atom : {mol.begin[bond], mol.end[bond]})
        mol.around(atom, [&](int, int other) {
          if (!taken[other]) touching.push_back(other);
        });
      for (size_t end = touching.size(); end-- > base;) {
        const int other = touching[end];
        if (taken[other]) continue;
        taken[other] = 1;
        tried.push_back(other);
        grow(other, size, base, end);
      }
      for (; tried.size() > before; tried.pop_back()) taken[tried.back()] = 0;
      touching.resize(base);
    }
    add(bond, -1);
  }
};

// Sorts keys [from, end) and makes counts a set; without `counts` repeats are left out.
void finish(Keys& keys, size_t from, bool counts) {
  std::sort(keys.begin() + from, keys.end());
  if (!counts) {
    keys.erase(std::unique(keys.begin() + from, keys.end()), keys.end());
    return;
  }
  uint64_t repeat = 0;
  uint64_t before = 0;
  for (size_t k = from; k < keys.size(); ++k) {
    repeat = k > from && keys[k] == before ? repeat + 1 : 0;
    before = keys[k];
    keys[k] += repeat * STEP;
  }
}

thread_local Keys result;

}  // namespace

enum Kind : int32_t { MORGAN, ATOM_PAIR, TORSION, SUBGRAPH };

// Works the keys of all molecules out: start [n_mol + 1] tells where those of each begin. `number` is
// of atoms: the first one of Morgan environments, the kind otherwise. Returns how many keys there
// are, which `tessera_take_keys` then copies.
extern "C" int64_t tessera_make_keys(int64_t n_mol, const int64_t* first_atom,
                                     const int64_t* first_bond, const int32_t* element,
                                     const int32_t* begin, const int32_t* end, const int32_t* type,
                                     const uint32_t* number, int32_t kind, int32_t radius,
                                     int32_t counts, int64_t* start) {
  const Mols mols{n_mol, first_atom, first_bond, element, begin, end, type};
  Mol mol;
  result.clear();
  for (int64_t i = 0; i < n_mol; ++i) {
    const size_t from = result.size();
    start[i] = int64_t(from);
    mol.take(mols, i);
    if (kind == MORGAN) morgan(mol, number, radius, result);
    if (kind == ATOM_PAIR) atom_pairs(mol, number, result);
    if (kind == TORSION) torsions(mol, number, result);
    if (kind == SUBGRAPH) Subgraphs(mol, number, result);
    finish(result, from, counts != 0);
  }
  start[n_mol] = int64_t(result.size());
  return start[n_mol];
}

extern "C" void tessera_take_keys(uint64_t* to) {
  std::copy(result.begin(), result.end(), to);
  Keys().swap(result);
}

// out [n_mol][5]: paths of two and of three bonds, and the sums over paths of two, three and four
// bonds of the product of `delta` over their atoms (a ring's first atom counts once).
extern "C" void tessera_sum_paths(int64_t n_mol, const int64_t* first_atom, const int64_t* first_bond,
                                  const int32_t* element, const int32_t* begin, const int32_t* end,
                                  const int32_t* type, const double* delta, double* out) {
  const Mols mols{n_mol, first_atom, first_bond, element, begin, end, type};
  Mol mol;
  for (int64_t i = 0; i < n_mol; ++i, out += 5) {
    mol.take(mols, i);
    std::fill(out, out + 5, 0.0);
    const double* own = delta + mol.offset;
    for (int n = 3; n <= 5; ++n)
      for_paths(mol, n, [&](const int* path, bool) {
        double product = 1.0;
        for (int k = 0; k < n - 1; ++k) product *= own[path[k]];
        if (path[n - 1] != path[0]) product *= own[path[n - 1]];
        out[n - 1] += product;
        if (n < 5) out[n - 3] += 1.0;
      });
  }
}
