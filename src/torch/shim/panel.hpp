// Products of rows with packed panels of up to 64 columns, by a tile that stays in registers.
//
// Every sum is added in the order of its terms, whatever other rows are in the tile, whichever
// thread computes it, and whatever shape the tile has. So the bits of a row of the result depend on
// that row alone. A BLAS gives no such promise, because it chooses its kernel by the number of
// rows.
#pragma once
#include <algorithm>
#include <cstdint>

#include "simd.hpp"

namespace docre {

constexpr int64_t kVectors = 4;
constexpr int64_t kPanel = kVectors * kLanes;  // columns of a whole panel
// Rows of a tile: 24 sums, 4 operands and a factor fit the 32 registers of AVX-512.
constexpr int64_t kTileRows = 6;
constexpr int64_t kDepth = 128;  // terms at a time: 32 KB of a panel stay in the nearest cache

// `depth` rows of numbers, `stride` apart. The first `vectors` · 16 columns count.
struct Panel {
  const float* data;
  int64_t stride, depth, vectors;
};

// Where the rows of a product come from and go to: out[r] = base[r] + Σ_k a[r][k · step] ·
// panel[k].
struct TileRows {
  const float* a[kTileRows];
  const float* base[kTileRows];
  float* out[kTileRows];
  int64_t step;
};

// `Lanes` is a vector that the machine has, so that sums stay in registers. A sum is the same with
// each.
template <typename Lanes, int Rows, int Vectors>
DOCRE_INLINE void tile(const TileRows& rows, const Panel& panel, int64_t column) {
  constexpr int64_t kWidth = sizeof(Lanes) / sizeof(float);
  Lanes sums[Rows][Vectors] = {};
  const float* from = panel.data + column;
  for (int64_t k = 0; k < panel.depth; k++, from += panel.stride) {
    Lanes b[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) std::memcpy(&b[v], from + v * kWidth, sizeof(Lanes));
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      float factor = rows.a[r][k * rows.step];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++) sums[r][v] += factor * b[v];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) {
      Lanes start;
      std::memcpy(&start, rows.base[r] + column + v * kWidth, sizeof(Lanes));
      start += sums[r][v];
      std::memcpy(rows.out[r] + column + v * kWidth, &start, sizeof(Lanes));
    }
}

template <typename Lanes, int Vectors>
DOCRE_INLINE void tile_of(int64_t count, const TileRows& rows, const Panel& panel, int64_t column) {
  switch (count) {
    case 1:
      return tile<Lanes, 1, Vectors>(rows, panel, column);
    case 2:
      return tile<Lanes, 2, Vectors>(rows, panel, column);
    case 3:
      return tile<Lanes, 3, Vectors>(rows, panel, column);
    case 4:
      return tile<Lanes, 4, Vectors>(rows, panel, column);
    case 5:
      return tile<Lanes, 5, Vectors>(rows, panel, column);
    default:
      return tile<Lanes, 6, Vectors>(rows, panel, column);
  }
}

// All columns at once, for machines with 32 registers of 16 lanes.
DOCRE_CLONES void wide_tile(int64_t count, const TileRows& rows, const Panel& panel) {
  switch (panel.vectors) {
    case 1:
      return tile_of<Floats, 1>(count, rows, panel, 0);
    case 2:
      return tile_of<Floats, 2>(count, rows, panel, 0);
    case 3:
      return tile_of<Floats, 3>(count, rows, panel, 0);
    default:
      return tile_of<Floats, 4>(count, rows, panel, 0);
  }
}

// Sixteen columns at a time, for machines with 16 registers of 8 lanes.
DOCRE_CLONES void narrow_tile(int64_t count, const TileRows& rows, const Panel& panel) {
  for (int64_t v = 0; v < panel.vectors; v++)
    tile_of<EightFloats, 2>(count, rows, panel, v * kLanes);
}

inline void tile_product(int64_t count, const TileRows& rows, const Panel& panel) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  static const bool wide = __builtin_cpu_supports("avx512f");
#else
  constexpr bool wide = true;
#endif
  return wide ? wide_tile(count, rows, panel) : narrow_tile(count, rows, panel);
}

// Cuts `rows` into tiles of nearly equal height, and calls each(first, count).
template <typename Each>
void for_tiles(int64_t rows, const Each& each) {
  int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    int64_t end = (i + 1) * rows / tiles;
    each(first, end - first);
    first = end;
  }
}

// out(r) = start + Σ_k a(r)[k · step] · panel[k], for all columns of the panel. `start` holds the
// numbers that every row starts with; if it is null, the product is added to `out`. a(r) and out(r)
// say where row r begins.
template <typename A, typename Out>
void panel_product(const A& a, int64_t step, int64_t rows, const Panel& panel, const float* start,
                   const Out& out) {
  // At least once: without terms, the sum is what it starts with.
  int64_t k = 0;
  do {
    Panel part{panel.data + k * panel.stride, panel.stride, std::min(kDepth, panel.depth - k),
               panel.vectors};
    for_tiles(rows, [&](int64_t first, int64_t count) {
      TileRows tile{{}, {}, {}, step};
      for (int64_t r = 0; r < count; r++) {
        tile.a[r] = a(first + r) + k * step;
        tile.out[r] = out(first + r);
        tile.base[r] = k == 0 && start ? start : tile.out[r];
      }
      tile_product(count, tile, part);
    });
  } while ((k += kDepth) < panel.depth);
}

// The same with a whole panel, for rows given by a table. It writes 64 columns, from `column` on.
inline void panel_product(const float* const* a, int64_t step, int64_t rows, const float* panel,
                          int64_t depth, const float* start, float* const* out, int64_t column) {
  panel_product([&](int64_t r) { return a[r]; }, step, rows, Panel{panel, kPanel, depth, kVectors},
                start, [&](int64_t r) { return out[r] + column; });
}

inline int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }
inline int64_t rounded_up(int64_t count, int64_t size) { return pieces(count, size) * size; }
inline int64_t padded(int64_t columns) { return rounded_up(columns, kLanes); }
// The same as an odd number of cache lines. Rows that lie a power of two apart compete for the same
// lines of the cache.
inline int64_t spread(int64_t columns) {
  return padded(columns) + (padded(columns) / kLanes % 2 ? 0 : kLanes);
}

// c [m, n] = a · b, or c += a · b if `add`. Row r of a begins at a + r · lda, and its terms lie
// `step` apart; b is [k, n]. Rows of b and c are read and written in whole groups of 16, beyond
// column n if need be.
inline void multiply_block(const float* a, int64_t lda, int64_t step, const float* b, int64_t ldb,
                           float* c, int64_t ldc, int64_t m, int64_t n, int64_t k, bool add) {
  static const float zeros[kPanel] = {};
  for (int64_t column = 0; column < n; column += kPanel) {
    Panel panel{b + column, ldb, k, pieces(std::min(kPanel, n - column), kLanes)};
    panel_product([&](int64_t r) { return a + r * lda; }, step, m, panel, add ? nullptr : zeros,
                  [&](int64_t r) { return c + r * ldc + column; });
  }
}

template <int Side>
DOCRE_INLINE void transpose_tile(const float* from, int64_t stride, float* to, int64_t to_stride,
                                 int64_t rows, int64_t columns) {
  for (int64_t k = 0; k < (Side ? Side : columns); k++)
    for (int64_t n = 0; n < (Side ? Side : rows); n++) to[k * to_stride + n] = from[n * stride + k];
}

// [rows, columns] → [columns, rows], a few cache lines at a time.
DOCRE_CLONES void transpose(const float* from, int64_t stride, int64_t rows, int64_t columns,
                            float* to, int64_t to_stride) {
  for (int64_t n = 0; n < rows; n += kLanes)
    for (int64_t k = 0; k < columns; k += kLanes) {
      int64_t some = std::min(kLanes, rows - n), terms = std::min(kLanes, columns - k);
      if (some == kLanes && terms == kLanes)
        transpose_tile<kLanes>(from + n * stride + k, stride, to + k * to_stride + n, to_stride,
                               some, terms);
      else
        transpose_tile<0>(from + n * stride + k, stride, to + k * to_stride + n, to_stride, some,
                          terms);
    }
}

}  // namespace docre
