// Products of pairs of 16-bit numbers, for machines that multiply a pair in one step (AVX512-BF16).
//
// A pair is one 32-bit word: two neighbours of a row, or two numbers of a column from rows 2k and
// 2k + 1, the second in the upper half. Sums have 32 bits. As in panel.hpp, the bits of a row of
// the result depend on that row alone.
#pragma once
#include <algorithm>
#include <cstring>

#include "panel.hpp"
#include "simd.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DOCRE_HAS_PAIRS 1
#include <immintrin.h>
#else
#define DOCRE_HAS_PAIRS 0
#endif

namespace docre {

constexpr int64_t kPairDepth = 128;  // pairs at a time: 32 KB of a panel stay in the nearest cache

inline bool multiplies_pairs() {
#if DOCRE_HAS_PAIRS
  static const bool has = __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
#else
  return false;
#endif
}

// Rows of pairs: row r begins at a[r], and its pairs lie `step` apart. If `add` is set, the product
// is added to `out`.
struct PairRows {
  const uint32_t* a[kTileRows];
  float* out[kTileRows];
  int64_t step;
  bool add;
};

// `depth` rows of pairs, `stride` apart.
struct PairPanel {
  const uint32_t* data;
  int64_t stride, depth;
};

#if DOCRE_HAS_PAIRS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")
// out[r] = Σ_k a[r][k] · panel[k], over the columns of `Vectors` groups of 16.
template <int Rows, int Vectors>
static inline void pair_tile(const PairRows& rows, const PairPanel& panel) {
  __m512 sums[Rows][Vectors];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++)
      sums[r][v] = rows.add ? _mm512_loadu_ps(rows.out[r] + v * kLanes) : _mm512_setzero_ps();
  const uint32_t* from = panel.data;
  for (int64_t k = 0; k < panel.depth; k++, from += panel.stride) {
    __m512i b[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) b[v] = _mm512_loadu_si512(from + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      uint32_t pair;
      std::memcpy(&pair, rows.a[r] + k * rows.step, sizeof(pair));
      __m512i a = _mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)a, (__m512bh)b[v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) _mm512_storeu_ps(rows.out[r] + v * kLanes, sums[r][v]);
}

template <int Vectors>
static inline void pair_tiles(int64_t count, const PairRows& rows, const PairPanel& panel) {
  switch (count) {
    case 1:
      return pair_tile<1, Vectors>(rows, panel);
    case 2:
      return pair_tile<2, Vectors>(rows, panel);
    case 3:
      return pair_tile<3, Vectors>(rows, panel);
    case 4:
      return pair_tile<4, Vectors>(rows, panel);
    case 5:
      return pair_tile<5, Vectors>(rows, panel);
    default:
      return pair_tile<6, Vectors>(rows, panel);
  }
}

static inline void pair_tiles(int64_t count, int64_t vectors, const PairRows& rows,
                              const PairPanel& panel) {
  switch (vectors) {
    case 1:
      return pair_tiles<1>(count, rows, panel);
    case 2:
      return pair_tiles<2>(count, rows, panel);
    case 3:
      return pair_tiles<3>(count, rows, panel);
    default:
      return pair_tiles<4>(count, rows, panel);
  }
}

// Sixteen numbers rounded to 16 bits, in the lower halves of words; to nearest even. Numbers too
// small for full precision become 0.
static inline __m512i lower_halves(const float* from, __mmask16 some) {
  __m512 x = _mm512_maskz_loadu_ps(some, from);
  return _mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)_mm512_cvtneps_pbh(x));
}
static inline __m512i lower_halves(const c10::BFloat16* from, __mmask16 some) {
  return _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(some, from));
}
static inline __mmask16 first_lanes(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
}
template <typename T>
static inline void pair_rows_here(const T* low, const T* high, uint32_t* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLanes) {
    __mmask16 some = first_lanes(count - c);
    __m512i both = lower_halves(low + c, some);
    if (high)
      both =
          _mm512_or_si512(both, _mm512_maskz_slli_epi32(0xffff, lower_halves(high + c, some), 16));
    _mm512_mask_storeu_epi32(to + c, some, both);
  }
}
static inline void round_row_here(const float* from, c10::BFloat16* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLanes) {
    __mmask16 some = first_lanes(count - c);
    __m512 x = _mm512_maskz_loadu_ps(some, from + c);
    _mm256_mask_storeu_epi16(to + c, some, (__m256i)_mm512_cvtneps_pbh(x));
  }
}
#pragma GCC pop_options
#else
static inline void pair_tiles(int64_t, int64_t, const PairRows&, const PairPanel&) {}
template <typename T>
static inline void pair_rows_here(const T*, const T*, uint32_t*, int64_t) {}
static inline void round_row_here(const float*, c10::BFloat16*, int64_t) {}
#endif

// Rounds two rows to 16 bits and puts the second into the upper halves. `high` may be null. Only
// where pairs are multiplied.
template <typename T>
void pair_rows(const T* low, const T* high, uint32_t* to, int64_t count) {
  pair_rows_here(low, high, to, count);
}

DOCRE_CLONES void round_row_anywhere(const float* from, c10::BFloat16* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLanes) {
    Floats x;
    load_next(from + c, count - c, x);
    store_next(to + c, count - c, x);
  }
}
inline void round_row(const float* from, c10::BFloat16* to, int64_t count) {
  multiplies_pairs() ? round_row_here(from, to, count) : round_row_anywhere(from, to, count);
}
inline void round_row(const c10::BFloat16* from, c10::BFloat16* to, int64_t count) {
  std::memcpy(to, from, count * sizeof(*to));
}

// out(r) = Σ_k a(r)[k · step] · panel[k] for `rows` rows and `width` columns of a panel, whose sums
// have room for whole groups of 16. If `add` is set, the product is added to them.
template <typename A, typename Out>
void pair_product(const A& a, int64_t step, int64_t rows, const PairPanel& panel, int64_t width,
                  const Out& out, bool add) {
  int64_t k = 0;
  do {
    PairPanel part{panel.data + k * panel.stride, panel.stride,
                   std::min(kPairDepth, panel.depth - k)};
    for_tiles(rows, [&](int64_t first, int64_t count) {
      PairRows tile{{}, {}, step, add || k > 0};
      for (int64_t r = 0; r < count; r++) {
        tile.a[r] = a(first + r) + k * step;
        tile.out[r] = out(first + r);
      }
      pair_tiles(count, pieces(width, kLanes), tile, part);
    });
  } while ((k += kPairDepth) < panel.depth);
}

// As multiply_block, with pairs: c [m, n] = a · b, or c += a · b if `add`, over k pairs.
inline void multiply_pairs(const uint32_t* a, int64_t lda, int64_t step, const uint32_t* b,
                           int64_t ldb, float* c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                           bool add) {
  for (int64_t column = 0; column < n; column += kPanel)
    pair_product([&](int64_t r) { return a + r * lda; }, step, m, PairPanel{b + column, ldb, k},
                 std::min(kPanel, n - column), [&](int64_t r) { return c + r * ldc + column; },
                 add);
}

}  // namespace docre
