// Single entries written into a dense matrix, and read out of one, sixteen places at a time.
//
// A bit for each place of the matrix says whether it is live; the processor's own expand and compress
// then move a vector of places at once, where a loop over entries waits for each. AVX-512 only.

#include <memory>
#include <vector>

#include "vector.h"

namespace {

constexpr int64_t STRETCH = 16;  // rows that a thread takes at a time

struct Mask {
  int64_t rows, cols, n_group;     // groups of sixteen places in a row
  std::vector<uint16_t> bits;      // [rows][n_group]
  std::vector<int64_t> first;      // [rows + 1]: entries before each row
};

#if defined(__AVX512F__)
inline __mmask16 lanes(int64_t n) { return n >= 16 ? 0xFFFF : (1u << n) - 1; }

inline __m512i take(const uint32_t* p, __mmask16 m) { return _mm512_maskz_loadu_epi32(m, p); }
inline __m512i take(const uint16_t* p, __mmask16 m) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
}
inline void put(uint32_t* p, __mmask16 m, __m512i v) { _mm512_mask_storeu_epi32(p, m, v); }
inline void put(uint16_t* p, __mmask16 m, __m512i v) {
  _mm256_mask_storeu_epi16(p, m, _mm512_cvtepi32_epi16(v));
}

// step(place in the row, its live lanes, bits, entry of the first of these) for each group of rows
// begin..end-1.
template <class Step>
void for_groups(const Mask& mask, int64_t begin, int64_t end, int n_thread, const Step& step) {
  const int64_t n_row = end - begin;
  n_thread = n_row * mask.cols < 1 << 16 ? 1 : n_thread;
  parallel_for((n_row + STRETCH - 1) / STRETCH, n_thread, [&](int64_t task) {
    const int64_t last = std::min(begin + (task + 1) * STRETCH, end);
    for (int64_t row = begin + task * STRETCH; row < last; ++row) {
      int64_t k = mask.first[row];
      const uint16_t* bits = &mask.bits[row * mask.n_group];
      for (int64_t g = 0; g < mask.n_group; ++g) {
        const int n = __builtin_popcount(bits[g]);
        step((row - begin) * mask.cols + g * 16, lanes(mask.cols - g * 16), bits[g], k, lanes(n));
        k += n;
      }
    }
  });
}

template <class Number>
void write(const Mask& mask, const Number* values, Number* dense, int n_thread) {
  for_groups(mask, 0, mask.rows, n_thread,
             [&](int64_t at, __mmask16 live, __mmask16 bits, int64_t k, __mmask16 some) {
               put(dense + at, live, _mm512_maskz_expand_epi32(bits, take(values + k, some)));
             });
}

template <class Number>
void read(const Mask& mask, const Number* dense, int64_t begin, int64_t end, Number* values,
          int n_thread) {
  for_groups(mask, begin, end, n_thread,
             [&](int64_t at, __mmask16 live, __mmask16 bits, int64_t k, __mmask16 some) {
               put(values + k, some, _mm512_maskz_compress_epi32(bits, take(dense + at, live)));
             });
}
#endif

}  // namespace

// A bit for each of rows x cols, set where an entry lies; null where the entries do not ascend by row
// and column, or this build has no use for it. Freed by tessera_free_mask.
extern "C" int32_t tessera_make_mask(const int32_t* row, const int32_t* column, int64_t n_entry,
                                     int64_t rows, int64_t cols, void** out) {
  *out = nullptr;
  int32_t outside = 0, ascends = 1;
  for (int64_t k = 0; k < n_entry; ++k)
    outside |= (row[k] < 0) | (row[k] >= rows) | (column[k] < 0) | (column[k] >= cols);
  for (int64_t k = 1; k < n_entry; ++k)
    ascends &= (row[k] > row[k - 1]) | ((row[k] == row[k - 1]) & (column[k] > column[k - 1]));
  if (outside) return BAD_INDEX;
#if defined(__AVX512F__)
  if (!ascends) return OK;
  auto mask = std::make_unique<Mask>();
  mask->rows = rows, mask->cols = cols, mask->n_group = (cols + 15) / 16;
  mask->bits.resize(rows * mask->n_group);
  mask->first.resize(rows + 1);
  for (int64_t k = 0; k < n_entry; ++k) {
    mask->bits[row[k] * mask->n_group + column[k] / 16] |= uint16_t(1u << column[k] % 16);
    ++mask->first[row[k] + 1];
  }
  for (int64_t i = 0; i < rows; ++i) mask->first[i + 1] += mask->first[i];
  *out = mask.release();
#endif
  return OK;
}

extern "C" int32_t tessera_free_mask(void* mask) {
  delete static_cast<Mask*>(mask);
  return OK;
}

// dense [rows][cols] = the entries at their places, zeros elsewhere. Numbers have four or two bytes.
extern "C" int32_t tessera_write_entries(const void* mask, const void* values, void* dense,
                                         int32_t n_byte, int32_t n_thread) {
#if defined(__AVX512F__)
  const Mask& m = *static_cast<const Mask*>(mask);
  on_large_pages(dense, m.rows * m.cols * n_byte);
  if (n_byte == 4)
    write(m, static_cast<const uint32_t*>(values), static_cast<uint32_t*>(dense), n_thread);
  else
    write(m, static_cast<const uint16_t*>(values), static_cast<uint16_t*>(dense), n_thread);
  return OK;
#else
  return NOT_BUILT;
#endif
}

// The entries of rows begin..end-1 out of these rows of a dense matrix, to their places in `values`.
extern "C" int32_t tessera_read_entries(const void* mask, const void* dense, int64_t begin,
                                        int64_t end, void* values, int32_t n_byte,
                                        int32_t n_thread) {
#if defined(__AVX512F__)
  const Mask& m = *static_cast<const Mask*>(mask);
  if (n_byte == 4)
    read(m, static_cast<const uint32_t*>(dense), begin, end, static_cast<uint32_t*>(values), n_thread);
  else
    read(m, static_cast<const uint16_t*>(dense), begin, end, static_cast<uint16_t*>(values), n_thread);
  return OK;
#else
  return NOT_BUILT;
#endif
}
