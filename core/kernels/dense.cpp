// Blocks written into a dense matrix, and read out of one.

#include <algorithm>
#include <cstring>

#include "vector.h"

namespace {

constexpr int64_t STRETCH = 1024;  // blocks, or rows, that a thread takes at a time

// visit(k, where block k begins in the matrix, its rows and its columns inside of the matrix).
template <class Visit>
int32_t for_blocks(const int32_t* row, const int32_t* column, int64_t n_block, int br, int bc,
                   int64_t rows, int64_t cols, int n_thread, const Visit& visit) {
  int32_t outside = 0;
  const int64_t n_row = (rows + br - 1) / br, n_column = (cols + bc - 1) / bc;
  for (int64_t k = 0; k < n_block; ++k)
    outside |= (row[k] < 0) | (row[k] >= n_row) | (column[k] < 0) | (column[k] >= n_column);
  if (outside) return BAD_INDEX;
  parallel_for((n_block + STRETCH - 1) / STRETCH, n_thread, [&](int64_t i) {
    const int64_t last = std::min((i + 1) * STRETCH, n_block);
    for (int64_t k = i * STRETCH; k < last; ++k) {
      if (br == 1 && bc == 1) {
        visit(k, row[k] * cols + column[k], 1, 1);
        continue;
      }
      const int64_t n_down = std::clamp<int64_t>(rows - row[k] * int64_t(br), 0, br);
      const int64_t n_across = std::clamp<int64_t>(cols - column[k] * int64_t(bc), 0, bc);
      visit(k, row[k] * int64_t(br) * cols + column[k] * int64_t(bc), n_down, n_across);
    }
  });
  return OK;
}

template <class Number>
int32_t write_blocks(const Number* values, const int32_t* row, const int32_t* column,
                     int64_t n_block, int br, int bc, Number* dense, int64_t rows, int64_t cols,
                     int n_thread) {
  parallel_for((rows + STRETCH - 1) / STRETCH, n_thread, [&](int64_t i) {
    const int64_t first = i * STRETCH, n = std::min(STRETCH, rows - first);
    std::memset(dense + first * cols, 0, n * cols * sizeof(Number));
  });
  return for_blocks(row, column, n_block, br, bc, rows, cols, n_thread,
                            [&](int64_t k, int64_t at, int64_t n_down, int64_t n_across) {
                              if (br == 1 && bc == 1) {
                                dense[at] = values[k];
                                return;
                              }
                              const Number* from = values + k * br * bc;
                              for (int64_t r = 0; r < n_down; ++r)
                                std::copy_n(from + r * bc, n_across, dense + at + r * cols);
                            });
}

template <class Number>
int32_t read_blocks(Number* values, const int32_t* row, const int32_t* column, int64_t n_block,
                    int br, int bc, const Number* dense, int64_t rows, int64_t cols, int n_thread) {
  return for_blocks(row, column, n_block, br, bc, rows, cols, n_thread,
                            [&](int64_t k, int64_t at, int64_t n_down, int64_t n_across) {
                              if (br == 1 && bc == 1) {
                                values[k] = dense[at];
                                return;
                              }
                              Number* to = values + k * br * bc;
                              for (int64_t r = 0; r < br; ++r, to += bc) {
                                const int64_t n = r < n_down ? n_across : 0;
                                std::copy_n(dense + at + r * cols, n, to);
                                std::fill_n(to + n, bc - n, Number());
                              }
                            });
}

}  // namespace

// dense [rows][cols] = the blocks [n_block][br][bc] at block rows and columns, zeros elsewhere.
// Numbers have four or two bytes.
extern "C" int32_t tessera_write_blocks(const void* values, const int32_t* row,
                                        const int32_t* column, int64_t n_block, int32_t br,
                                        int32_t bc, void* dense, int64_t rows, int64_t cols,
                                        int32_t n_byte, int32_t n_thread) {
  on_large_pages(dense, rows * cols * n_byte);
  auto run = [&](auto number) {
    using Number = decltype(number);
    return write_blocks(static_cast<const Number*>(values), row, column, n_block, br, bc,
                        static_cast<Number*>(dense), rows, cols, n_thread);
  };
  return n_byte == 4 ? run(uint32_t()) : run(uint16_t());
}

// The blocks of a dense matrix; entries beyond its edges are zeros.
extern "C" int32_t tessera_read_blocks(void* values, const int32_t* row, const int32_t* column,
                                       int64_t n_block, int32_t br, int32_t bc, const void* dense,
                                       int64_t rows, int64_t cols, int32_t n_byte,
                                       int32_t n_thread) {
  on_large_pages(values, n_block * br * bc * n_byte);
  auto run = [&](auto number) {
    using Number = decltype(number);
    return read_blocks(static_cast<Number*>(values), row, column, n_block, br, bc,
                       static_cast<const Number*>(dense), rows, cols, n_thread);
  };
  return n_byte == 4 ? run(uint32_t()) : run(uint16_t());
}
