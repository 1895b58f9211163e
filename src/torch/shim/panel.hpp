// Products of rows with packed panels of 64 columns, by a register tile of our own.
// Every sum is added in the order of its terms, whatever rows stand beside it in the tile and whichever instruction set is at hand, so that
// the bits of a row depend on nothing but the row. (A BLAS chooses its kernel by the number of rows.)
#pragma once
#include <algorithm>
#include <cstdint>

#include "simd.hpp"

namespace docre {

constexpr int64_t kVectors = 4;
constexpr int64_t kPanel = kVectors * kLanes;  // columns of a panel
constexpr int64_t kTileRows = 6;               // 24 sums, 4 operands and a factor fit the 32 registers of AVX-512
constexpr int64_t kDepth = 128;                // terms at a time: 32 KB of a panel stay in the nearest cache

// Without AVX-512 a row has eight sums and half the registers are left for operands.
inline int64_t tile_rows() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  static const bool wide = __builtin_cpu_supports("avx512f");
  return wide ? kTileRows : 1;
#else
  return 1;
#endif
}

// out[r][0..64] = base[r][0..64] + Σ_k a[r][k · step] · panel[k][0..64]
template <int Rows>
DOCRE_INLINE void tile(const float* const* a, int64_t step, const float* panel, int64_t depth, const float* const* base, float* const* out) {
  Floats sums[Rows][kVectors] = {};
  for (int64_t k = 0; k < depth; k++, panel += kPanel) {
    Floats b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) load(panel + v * kLanes, b[v]);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      float factor = a[r][k * step];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) sums[r][v] += factor * b[v];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      Floats start;
      load(base[r] + v * kLanes, start);
      store(out[r] + v * kLanes, start + sums[r][v]);
    }
}

DOCRE_CLONES void tile_product(int64_t rows, const float* const* a, int64_t step, const float* panel, int64_t depth, const float* const* base, float* const* out) {
  switch (rows) {
    case 1: return tile<1>(a, step, panel, depth, base, out);
    case 2: return tile<2>(a, step, panel, depth, base, out);
    case 3: return tile<3>(a, step, panel, depth, base, out);
    case 4: return tile<4>(a, step, panel, depth, base, out);
    case 5: return tile<5>(a, step, panel, depth, base, out);
    default: return tile<6>(a, step, panel, depth, base, out);
  }
}

// Cuts `rows` into tiles of nearly equal height and calls each(first, count).
template <typename Each>
void for_tiles(int64_t rows, const Each& each) {
  int64_t most = tile_rows(), tiles = (rows + most - 1) / most;
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    int64_t end = (i + 1) * rows / tiles;
    each(first, end - first);
    first = end;
  }
}

// out[r] + column (64 numbers) = start + Σ_k a[r][k · step] · panel[k]; `start`: 64 numbers for all rows, or null to add to what is there.
inline void panel_product(const float* const* a, int64_t step, int64_t rows, const float* panel, int64_t depth, const float* start, float* const* out, int64_t column) {
  for (int64_t k = 0; k < depth; k += kDepth)
    for_tiles(rows, [&](int64_t first, int64_t count) {
      const float *factors[kTileRows], *base[kTileRows];
      float* to[kTileRows];
      for (int64_t r = 0; r < count; r++) {
        factors[r] = a[first + r] + k * step;
        to[r] = out[first + r] + column;
        base[r] = k == 0 && start ? start : to[r];
      }
      tile_product(count, factors, step, panel + k * kPanel, std::min(kDepth, depth - k), base, to);
    });
}

}  // namespace docre
