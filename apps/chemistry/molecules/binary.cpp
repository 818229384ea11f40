// Reads atoms and bonds out of RDKit's binary form of molecules, many at a time.
//
// Whoever asks a molecule atom by atom pays a Python call for each figure; this form holds them all.
// It is read with care: whatever is not as expected (another version, atoms with queries or maps, more
// than 255 atoms) leaves the molecule unread, for the caller to ask it the slow way.

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

constexpr int32_t MAGIC = int32_t(0xDEADBEEF), MAJOR = 16;
constexpr int BEGIN_ATOMS = 0x01, BEGIN_BONDS = 0x0b, BEGIN_RINGS = 0x42;
constexpr int AROMATIC = 1 << 6, NO_IMPLICIT = 1 << 5, CONJUGATED = 1 << 5;
constexpr int TYPE = 1 << 3, DIRECTION = 1 << 2, STEREO = 1 << 1;
constexpr int SP3 = 4, SINGLE = 1, MAX_RING = 8;
enum Figure { MASS, CHARGE, CHIRALITY, HYBRIDISATION, EXPLICIT_H, EXPLICIT_VALENCE,
              IMPLICIT_VALENCE, RADICALS, ISOTOPE, N_FIGURE };

struct Reader {
  const uint8_t *at, *end;
  bool is_fine = true;

  uint8_t byte() {
    if (at >= end) return is_fine = false, 0;
    return *at++;
  }
  int32_t integer() {
    int32_t value = 0;
    if (end - at < 4) return is_fine = false, 0;
    std::memcpy(&value, at, 4);
    at += 4;
    return value;
  }
  void expect(bool that) { is_fine &= that; }
};

struct Atoms {
  int32_t *element, *charge, *hydrogen, *hybridisation, *valence, *pi, *isotope, *aromatic, *rings;
};
struct Bonds {
  int32_t *begin, *end, *type, *ring;
};

// Reads one molecule; `atoms` and `bonds` begin at its own.
bool read(Reader in, int n_atom, int n_bond, Atoms atoms, Bonds bonds) {
  in.expect(in.integer() == MAGIC);
  in.integer();
  in.expect(in.integer() == MAJOR);
  in.integer();
  in.integer();
  in.expect(in.integer() == n_atom && in.integer() == n_bond && n_atom <= 255);
  in.byte();
  in.expect(in.byte() == BEGIN_ATOMS);
  for (int i = 0; in.is_fine && i < n_atom; ++i) {
    atoms.element[i] = in.byte();
    const int flags = in.byte();
    in.expect(!(flags & ~(AROMATIC | NO_IMPLICIT)));
    const int32_t given = in.integer();
    in.expect(given >= 0 && !(given >> N_FIGURE) && !(given & 1 << MASS));
    int figure[N_FIGURE] = {};
    figure[HYBRIDISATION] = SP3;
    for (int k = CHARGE; k < N_FIGURE; ++k)
      if (given & 1 << k) figure[k] = k == ISOTOPE ? in.integer() : int8_t(in.byte());
    atoms.charge[i] = figure[CHARGE];
    atoms.hydrogen[i] = figure[EXPLICIT_H] + figure[IMPLICIT_VALENCE];
    atoms.hybridisation[i] = figure[HYBRIDISATION];
    atoms.valence[i] = figure[EXPLICIT_VALENCE] + figure[IMPLICIT_VALENCE];
    atoms.pi[i] = flags & AROMATIC              ? 1
                  : figure[HYBRIDISATION] == SP3 ? 0
                                                 : figure[EXPLICIT_VALENCE] - figure[EXPLICIT_H];
    atoms.isotope[i] = figure[ISOTOPE];
    atoms.aromatic[i] = (flags & AROMATIC) != 0;
    atoms.rings[i] = 0;
    in.expect(figure[IMPLICIT_VALENCE] >= 0 && figure[EXPLICIT_VALENCE] >= 0);
  }
  in.expect(in.byte() == BEGIN_BONDS || n_bond == 0);
  for (int k = 0; in.is_fine && k < n_bond; ++k) {
    bonds.begin[k] = in.byte();
    bonds.end[k] = in.byte();
    in.expect(bonds.begin[k] < n_atom && bonds.end[k] < n_atom && bonds.begin[k] != bonds.end[k]);
    const int flags = in.byte();
    in.expect(!(flags & ~(AROMATIC | CONJUGATED | TYPE | DIRECTION | STEREO)));
    bonds.type[k] = flags & TYPE ? in.byte() : SINGLE;
    bonds.ring[k] = 0;
    if (flags & DIRECTION) in.byte();
    if (flags & STEREO) {
      in.byte();
      for (int n = in.byte(); in.is_fine && n > 0; --n) in.byte();
    }
    if (!in.is_fine) return false;
    for (int atom : {bonds.begin[k], bonds.end[k]})  // what the valence has beyond the bonds
      if (!atoms.aromatic[atom] && atoms.hybridisation[atom] != SP3) --atoms.pi[atom];
  }
  in.expect(n_bond == 0 || in.byte() == BEGIN_RINGS);
  const int n_ring = n_bond ? in.integer() : 0;
  for (int r = 0; in.is_fine && r < n_ring; ++r) {
    const int size = in.byte();
    const uint8_t* const ring = in.at;
    in.expect(size > 2 && in.end - in.at > size);
    if (!in.is_fine) return false;
    in.at += size;
    for (int i = 0; i < size; ++i) {
      const int a = ring[i], b = ring[(i + 1) % size];
      in.expect(a < n_atom && b < n_atom);
      if (!in.is_fine) return false;
      atoms.rings[a] |= 1 << (size < MAX_RING ? size : MAX_RING);
      for (int k = 0; k < n_bond; ++k)
        bonds.ring[k] |= (bonds.begin[k] == a && bonds.end[k] == b) ||
                         (bonds.begin[k] == b && bonds.end[k] == a);
    }
  }
  return in.is_fine;
}

}  // namespace

// data: the molecules' binary forms, that of molecule i from start[i]. Writes 1 to fine[i] where it was
// read. atoms [9][n_atom of all], bonds [4][n_bond of all], in the order of `Atoms` and `Bonds`.
extern "C" void tessera_read_molecules(const uint8_t* data, const int64_t* start, int64_t n_mol,
                                       const int64_t* first_atom, const int64_t* first_bond,
                                       int32_t* atoms, int32_t* bonds, uint8_t* fine) {
  const int64_t a = first_atom[n_mol], b = first_bond[n_mol];
  for (int64_t i = 0; i < n_mol; ++i) {
    int32_t *x = atoms + first_atom[i], *y = bonds + first_bond[i];
    const Atoms own{x, x + a, x + 2 * a, x + 3 * a, x + 4 * a, x + 5 * a, x + 6 * a, x + 7 * a, x + 8 * a};
    fine[i] = read({data + start[i], data + start[i + 1]}, int(first_atom[i + 1] - first_atom[i]),
                   int(first_bond[i + 1] - first_bond[i]), own, {y, y + b, y + 2 * b, y + 3 * b});
  }
}
