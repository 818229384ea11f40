// Keys of molecules looked up among known ones, and the similarity that comes of what they share.
//
// Keys of many rows are counted by a dense product of bytes, elsewhere; this fills its left side, and
// counts the others by the short list of rows that hold each.

#include <cstdint>

namespace {

inline int64_t first_slot(uint64_t key, int n_bit) {
  return int64_t((key ^ key >> 29) * 0xBF58476D1CE4E5B9u >> (64 - n_bit));
}

}  // namespace

// slots [1 << n_bit], more than there are keys: number of a key, or -1.
extern "C" void tessera_index_keys(const uint64_t* known, int64_t n_known, int32_t n_bit,
                                   int32_t* slots) {
  const int64_t last = (int64_t(1) << n_bit) - 1;
  for (int64_t s = 0; s <= last; ++s) slots[s] = -1;
  for (int64_t k = 0; k < n_known; ++k) {
    int64_t s = first_slot(known[k], n_bit);
    while (slots[s] >= 0) s = (s + 1) & last;
    slots[s] = int32_t(k);
  }
}

// For rows of keys, those of row i from start[i]: sets bits [n_row][n_frequent] of the frequent ones and
// adds to both [n_row][n_column] what rare ones the columns share. place: of each known key among the
// frequent or the rare ones; the columns that hold rare key r are column[first[r]..first[r + 1]].
extern "C" void tessera_share_keys(int64_t n_row, const int64_t* start, const uint64_t* key,
                                   const uint64_t* known, int32_t n_bit, const int32_t* slots,
                                   const int64_t* place, const uint8_t* is_frequent,
                                   int64_t n_frequent, const int32_t* first, const int32_t* column,
                                   int64_t n_column, int8_t* bits, float* both) {
  const int64_t last = (int64_t(1) << n_bit) - 1;
  for (int64_t i = 0; i < n_row; ++i, bits += n_frequent, both += n_column)
    for (int64_t k = start[i]; k < start[i + 1]; ++k) {
      int64_t s = first_slot(key[k], n_bit);
      while (slots[s] >= 0 && known[slots[s]] != key[k]) s = (s + 1) & last;
      const int32_t found = slots[s];
      if (found < 0) continue;
      const int64_t at = place[found];
      if (is_frequent[found]) {
        bits[at] = 1;
        continue;
      }
      for (int32_t e = first[at]; e < first[at + 1]; ++e) both[column[e]] += 1.0f;
    }
}

// out: shared over all keys of each pair, 1 where neither has any; shared: both plus dense, which may be
// null. out may be both.
extern "C" void tessera_tanimoto(int64_t n_row, int64_t n_column, const float* both,
                                 const int32_t* dense, const float* size_row,
                                 const float* size_column, float* out) {
  for (int64_t i = 0; i < n_row; ++i)
    for (int64_t j = 0; j < n_column; ++j) {
      const int64_t at = i * n_column + j;
      const float shared = both[at] + (dense ? float(dense[at]) : 0.0f);
      const float all = size_row[i] + size_column[j] - shared;
      out[at] = all > 0.0f ? shared / all : 1.0f;
    }
}
