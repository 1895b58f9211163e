// From scores of attention to probabilities, and the gradient of that.
#pragma once
#include <cmath>

#include "dropout.hpp"
#include "pairs.hpp"
#include "simd.hpp"

namespace docre {

// A block of rows of scores, as the kernels below see it: `length` keys from key `first` on.
struct ScoreBlock {
  int64_t rows, first, length, stride;
  const int64_t* keys;  // of the block's first row
  uint64_t salt;
  uint32_t threshold;
  float keep_scale;
};

// Scores below this distance from the largest one give a probability of exactly 0 where a window
// hides keys: products with what the exponential leaves of them would be slow denormal numbers.
constexpr float kNoShare = 80.0f;

// Sets the lanes of `p` to 0 where `x` is below -kNoShare.
DOCRE_INLINE void drop_hidden(const Floats& x, Floats& p) {
  Words hidden;
  negative(x + kNoShare, hidden);
  p = (Floats)((Words)p & ~hidden);
}

// Turns scores into exp(score - max), sets what the dropout mask drops to zero, and writes 1/sum
// and the log-sum-exp of each row. With `Hides`, some scores may be kHidden.
template <bool Hides>
DOCRE_INLINE void softmax_all(float* scores, float* inverse_sum, float* log_sum,
                              const ScoreBlock& block) {
  for (int64_t i = 0; i < block.rows; i++) {
    float* row = scores + i * block.stride;
    for (int64_t j = block.length; j < block.stride; j++) row[j] = -1e30f;
    Floats top, odd, sum = {}, x;
    splat(-1e30f, top);
    splat(-1e30f, odd);
    // Two groups at a time, which need not wait for each other.
    for (int64_t j = 0; j < block.stride; j += 2 * kLanes) {
      load(row + j, x);
      maximum(top, x);
      if (j + kLanes < block.stride) load(row + j + kLanes, x);
      maximum(odd, x);
    }
    maximum(top, odd);
    float shift = max_lanes(top);
    for (int64_t j = 0; j < block.stride; j += kLanes) {
      load(row + j, x);
      x -= shift;
      Floats p = x;
      exponential(p);
      if (Hides) drop_hidden(x, p);
      sum += p;
      store(row + j, p);
    }
    float total = sum_lanes(sum);
    inverse_sum[i] = 1.0f / total;
    log_sum[i] = shift + std::log(total);
    if (!block.keys) continue;
    RowKey key = row_key(block.keys[i], block.salt);
    for (int64_t j = 0; j < block.stride; j += kLanes) {
      load(row + j, x);
      drop_lanes(key, block.first + j, block.threshold, block.keep_scale, x);
      store(row + j, x);
    }
  }
}
DOCRE_CLONES void softmax_rows(float* scores, float* inverse_sum, float* log_sum,
                               const ScoreBlock& block) {
  softmax_all<false>(scores, inverse_sum, log_sum, block);
}
DOCRE_CLONES void softmax_seen_rows(float* scores, float* inverse_sum, float* log_sum,
                                    const ScoreBlock& block) {
  softmax_all<true>(scores, inverse_sum, log_sum, block);
}

// Turns scores into the dropped and scaled probabilities P, and dP into dS, both in place. `delta`
// is the sum of grad · out over each row.
template <bool Hides>
DOCRE_INLINE void softmax_all_backward(float* scores, float* grads, const float* log_sum,
                                       const float* delta, const ScoreBlock& block) {
  for (int64_t i = 0; i < block.rows; i++) {
    float *row = scores + i * block.stride, *grad = grads + i * block.stride;
    RowKey key = block.keys ? row_key(block.keys[i], block.salt) : RowKey{};
    for (int64_t j = 0; j < block.stride; j += kLanes) {
      Floats p, g, dropped;
      load(row + j, p);
      load(grad + j, g);
      p -= log_sum[i];
      Floats x = p;
      exponential(p);
      if (Hides) drop_hidden(x, p);
      dropped = p;
      if (block.keys) {
        Words mask;
        keep_mask(key, static_cast<uint32_t>(block.first + j), block.threshold, mask);
        dropped = (Floats)((Words)(p * block.keep_scale) & mask);
        g = (Floats)((Words)(g * block.keep_scale) & mask);
      }
      store(row + j, dropped);
      store(grad + j, p * (g - delta[i]));
    }
  }
}
DOCRE_CLONES void softmax_rows_backward(float* scores, float* grads, const float* log_sum,
                                        const float* delta, const ScoreBlock& block) {
  softmax_all_backward<false>(scores, grads, log_sum, delta, block);
}
DOCRE_CLONES void softmax_seen_rows_backward(float* scores, float* grads, const float* log_sum,
                                             const float* delta, const ScoreBlock& block) {
  softmax_all_backward<true>(scores, grads, log_sum, delta, block);
}

#if DOCRE_HAS_PAIRS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")
// 2^x, by the polynomial of Cephes' exp2f. The relative error is below 2e-7.
static inline __m512 power_of_two(__m512 x) {
  __m512 n = _mm512_maskz_roundscale_ps(0xffff, x, _MM_FROUND_TO_NEAREST_INT), r = x - n;
  __m512 p = _mm512_set1_ps(1.535336188319500e-4f);
  p = p * r + 1.339887440266574e-3f;
  p = p * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
  return _mm512_maskz_scalef_ps(0xffff, p, n);
}

// As softmax_rows, but leaves scores as they are and rounds what it makes of them to 16 bits:
// `halves` [rows, padded(length)]. What it rounds is not rounded before it is added. A score that
// is far below the largest gives 0 by itself: products take denormal numbers for 0.
static inline void pair_softmax(float* scores, c10::BFloat16* halves, float* inverse_sum,
                                float* log_sum, const ScoreBlock& block) {
  constexpr float kLog2E = 1.44269504088896341f;
  int64_t wide = padded(block.length);
  for (int64_t i = 0; i < block.rows; i++) {
    float* row = scores + i * block.stride;
    c10::BFloat16* to = halves + i * wide;
    __m512 even = _mm512_set1_ps(-1e30f), odd = even, sum = _mm512_setzero_ps();
    for (int64_t j = block.length; j < wide; j++) row[j] = -1e30f;
    // Two groups at a time, which need not wait for each other.
    for (int64_t j = 0; j < wide; j += 2 * kLanes) {
      even = _mm512_maskz_max_ps(0xffff, even, _mm512_loadu_ps(row + j));
      if (j + kLanes < wide)
        odd = _mm512_maskz_max_ps(0xffff, odd, _mm512_loadu_ps(row + j + kLanes));
    }
    float top = max_halves((Floats)_mm512_maskz_max_ps(0xffff, even, odd));
    RowKey key = block.keys ? row_key(block.keys[i], block.salt) : RowKey{};
    __m512 scale = _mm512_set1_ps(kLog2E), shift = _mm512_set1_ps(top * kLog2E);
    for (int64_t j = 0; j < wide; j += kLanes) {
      __m512 p = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(row + j), scale, shift));
      sum += p;
      if (block.keys) {
        Floats kept = (Floats)p;
        drop_lanes(key, block.first + j, block.threshold, block.keep_scale, kept);
        p = (__m512)kept;
      }
      store_halves(to + j, 0xffff, p);
    }
    float total = sum_halves((Floats)sum);
    inverse_sum[i] = 1.0f / total;
    log_sum[i] = top + std::log(total);
  }
}
#pragma GCC pop_options
#else
static inline void pair_softmax(float*, c10::BFloat16*, float*, float*, const ScoreBlock&) {}
#endif

}  // namespace docre
