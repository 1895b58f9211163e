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

// Rows of a product. Row r has its pairs at a + r · lda, `step` apart. It is added to what `base`
// holds; without a base, sums start with zero. Sums go to `out`. If there are `halves`, the first
// `width` of them go there instead, rounded to 16 bits.
struct PairRows {
  const uint32_t* a;
  int64_t lda, step;
  const float* base;
  int64_t base_stride;
  float* out;
  int64_t stride;
  c10::BFloat16* halves;
  int64_t halves_stride, width;

  PairRows from(int64_t row) const {
    PairRows rest = *this;
    rest.a += row * lda;
    if (base) rest.base += row * base_stride;
    rest.out += row * stride;
    if (halves) rest.halves += row * halves_stride;
    return rest;
  }
};

// `depth` rows of pairs, `stride` apart.
struct PairPanel {
  const uint32_t* data;
  int64_t stride, depth;
};

#if DOCRE_HAS_PAIRS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")
static inline __mmask16 first_lanes(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
}
// Rounds to nearest even. Numbers too small for full precision become 0.
static inline void store_halves(c10::BFloat16* to, __mmask16 some, __m512 x) {
  _mm256_mask_storeu_epi16(to, some, (__m256i)_mm512_cvtneps_pbh(x));
}

// out(r) = base(r) + Σ_k a(r)[k] · panel[k], over the columns of `Vectors` groups of 16.
template <int Rows, int Vectors>
static inline void pair_tile(const PairRows& rows, const PairPanel& panel) {
  __m512 sums[Rows][Vectors];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++)
      sums[r][v] = rows.base ? _mm512_loadu_ps(rows.base + r * rows.base_stride + v * kLanes)
                             : _mm512_setzero_ps();
  const uint32_t* left[Rows];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++) left[r] = rows.a + r * rows.lda;
  const uint32_t* from = panel.data;
  for (int64_t k = 0; k < panel.depth; k++, from += panel.stride) {
    __m512i b[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) b[v] = _mm512_loadu_si512(from + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++) {
      uint32_t pair;
      std::memcpy(&pair, left[r] + k * rows.step, sizeof(pair));
      __m512i a = _mm512_set1_epi32(static_cast<int>(pair));
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)a, (__m512bh)b[v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++)
      if (rows.halves)
        store_halves(rows.halves + r * rows.halves_stride + v * kLanes,
                     first_lanes(rows.width - v * kLanes), sums[r][v]);
      else
        _mm512_storeu_ps(rows.out + r * rows.stride + v * kLanes, sums[r][v]);
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
    store_halves(to + c, some, _mm512_maskz_loadu_ps(some, from + c));
  }
}
static inline void scale_row_here(const c10::BFloat16* from, c10::BFloat16* to, int64_t count,
                                  float factor) {
  for (int64_t c = 0; c < count; c += kLanes) {
    __mmask16 some = first_lanes(count - c);
    __m512i wide = _mm512_maskz_slli_epi32(0xffff, lower_halves(from + c, some), 16);
    store_halves(to + c, some, (__m512)wide * factor);
  }
}

// to[c][r] = from[r][c], for 16 rows and columns.
static inline void turn_tile(const uint32_t* from, int64_t stride, uint32_t* to,
                             int64_t to_stride) {
  __m512i a[kLanes], b[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_maskz_unpacklo_epi32(0xffff, a[i], a[i + 1]);
    b[i + 1] = _mm512_maskz_unpackhi_epi32(0xffff, a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_maskz_unpacklo_epi64(0xff, b[i], b[i + 2]);
    a[i + 1] = _mm512_maskz_unpackhi_epi64(0xff, b[i], b[i + 2]);
    a[i + 2] = _mm512_maskz_unpacklo_epi64(0xff, b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_maskz_unpackhi_epi64(0xff, b[i + 1], b[i + 3]);
  }
  // A quarter of a[i + j] now holds column j + 4 · quarter of rows i..i + 4.
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    b[j] = _mm512_maskz_shuffle_i32x4(0xffff, a[j], a[4 + j], 0x88);
    b[4 + j] = _mm512_maskz_shuffle_i32x4(0xffff, a[j], a[4 + j], 0xdd);
    b[8 + j] = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + j], a[12 + j], 0x88);
    b[12 + j] = _mm512_maskz_shuffle_i32x4(0xffff, a[8 + j], a[12 + j], 0xdd);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 8; j++) {
    _mm512_storeu_si512(to + j * to_stride,
                        _mm512_maskz_shuffle_i32x4(0xffff, b[j], b[8 + j], 0x88));
    _mm512_storeu_si512(to + (8 + j) * to_stride,
                        _mm512_maskz_shuffle_i32x4(0xffff, b[j], b[8 + j], 0xdd));
  }
}
static inline void turn_words_here(const uint32_t* from, int64_t stride, int64_t rows,
                                   int64_t columns, uint32_t* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t c = 0; c < columns; c += kLanes)
      if (rows - r >= kLanes && columns - c >= kLanes)
        turn_tile(from + r * stride + c, stride, to + c * to_stride + r, to_stride);
      else
        for (int64_t i = r; i < std::min(rows, r + kLanes); i++)
          for (int64_t k = c; k < std::min(columns, c + kLanes); k++)
            to[k * to_stride + i] = from[i * stride + k];
}
#pragma GCC pop_options
#else
static inline void scale_row_here(const c10::BFloat16*, c10::BFloat16*, int64_t, float) {}
static inline void turn_words_here(const uint32_t*, int64_t, int64_t, int64_t, uint32_t*, int64_t) {
}
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

// to = factor · from. Only where pairs are multiplied.
inline void scale_row(const c10::BFloat16* from, c10::BFloat16* to, int64_t count, float factor) {
  scale_row_here(from, to, count, factor);
}
// [rows, columns] → [columns, rows]. Only where pairs are multiplied.
inline void turn_words(const uint32_t* from, int64_t stride, int64_t rows, int64_t columns,
                       uint32_t* to, int64_t to_stride) {
  turn_words_here(from, stride, rows, columns, to, to_stride);
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

// The product of `count` rows with a panel. `out` has room for whole groups of 16; sums wait there
// if the panel is too deep for the nearest cache.
inline void pair_product(const PairRows& all, int64_t count, const PairPanel& panel) {
  int64_t k = 0;
  do {
    PairPanel part{panel.data + k * panel.stride, panel.stride,
                   std::min(kPairDepth, panel.depth - k)};
    PairRows rows = all;
    rows.a += k * all.step;
    if (k > 0) {
      rows.base = all.out;
      rows.base_stride = all.stride;
    }
    if (k + kPairDepth < panel.depth) rows.halves = nullptr;
    for_tiles(count, [&](int64_t first, int64_t some) {
      pair_tiles(some, pieces(all.width, kLanes), rows.from(first), part);
    });
  } while ((k += kPairDepth) < panel.depth);
}

// As multiply_block, with pairs: c [m, n] = a · b, or c += a · b if `add`, over k pairs.
inline void multiply_pairs(const uint32_t* a, int64_t lda, int64_t step, const uint32_t* b,
                           int64_t ldb, float* c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                           bool add) {
  for (int64_t column = 0; column < n; column += kPanel) {
    PairRows rows{a,   lda,     step, add ? c + column : nullptr,  ldc, c + column,
                  ldc, nullptr, 0,    std::min(kPanel, n - column)};
    pair_product(rows, m, PairPanel{b + column, ldb, k});
  }
}

}  // namespace docre
