// The operands of the products of one head: as they are, or as pairs of 16-bit numbers.
//
// Attention packs its rows as 32-bit numbers, and these types make of them what the products need.
// Rows of 16-bit numbers become pairs at once.
#pragma once
#include "pairs.hpp"
#include "panel.hpp"
#include "rows.hpp"
#include "scratch.hpp"
#include "softmax.hpp"

namespace docre {

// 32-bit numbers. Nothing is copied but what must be turned.
struct FloatOperands {
  static constexpr bool kTakesHalves = false;
  // Rows [count, width] as the left side of a product over their columns.
  struct Left {
    const float* data;
    int64_t stride;
    Left from(int64_t row) const { return {data + row * stride, stride}; }
  };
  // A matrix [depth, columns] as the right side.
  struct Right {
    const float* data;
    int64_t stride;
    Right from_row(int64_t row) const { return {data + row * stride, stride}; }
    Right from_column(int64_t column) const { return {data + column, stride}; }
  };

  // What the operands of `count` rows of `width` numbers need of a Scratch.
  static int64_t left_floats(int64_t, int64_t) { return 0; }
  static int64_t right_floats(int64_t, int64_t) { return 0; }
  static int64_t turned_floats(int64_t count, int64_t width) { return width * spread(count); }
  // And the products with scores of a block.
  static int64_t weight_floats(int64_t, int64_t) { return 0; }

  static Left left(const float* rows, int64_t stride, int64_t, int64_t, Scratch&) {
    return {rows, stride};
  }
  static Right right(const float* rows, int64_t stride, int64_t, int64_t, Scratch&) {
    return {rows, stride};
  }
  // The transpose of rows [count, width] as the right side.
  static Right turned(const float* rows, int64_t stride, int64_t count, int64_t width,
                      Scratch& scratch) {
    float* to = scratch.take(turned_floats(count, width));
    transpose(rows, stride, count, width, to, spread(count));
    return {to, spread(count)};
  }

  // Weights [rows, columns], of which products are made both ways.
  struct Weights {
    Weights(int64_t, int64_t, Scratch&) {}
    // The softmax of scores, without its division. `hides`: some scores may be kHidden.
    void soften(float* scores, float* inverse_sum, float* log_sum, const ScoreBlock& block,
                bool hides) const {
      (hides ? softmax_seen_rows : softmax_rows)(scores, inverse_sum, log_sum, block);
    }
    // c [rows, n] = what was made of scores · b
    void softened_times(const float* scores, const ScoreBlock& block, const Right& b, float* c,
                        int64_t ldc, int64_t n) const {
      times(scores, block.stride, block.rows, block.length, b, c, ldc, n);
    }
    // c [rows, n] = weights · b
    void times(const float* weights, int64_t stride, int64_t rows, int64_t columns, const Right& b,
               float* c, int64_t ldc, int64_t n) const {
      multiply_block(weights, stride, 1, b.data, b.stride, c, ldc, rows, n, columns, false);
    }
    // c [columns, n] = weightsᵀ · b, or += if `add`
    void turned_times(const float* weights, int64_t stride, int64_t rows, int64_t columns,
                      const Right& b, float* c, int64_t ldc, int64_t n, bool add) const {
      multiply_block(weights, 1, stride, b.data, b.stride, c, ldc, columns, n, rows, add);
    }
  };

  // c [m, n] = a · b over `depth` numbers.
  static void multiply(const Left& a, const Right& b, float* c, int64_t ldc, int64_t m, int64_t n,
                       int64_t depth) {
    multiply_block(a.data, a.stride, 1, b.data, b.stride, c, ldc, m, n, depth, false);
  }
};

// Pairs of 16-bit numbers. Everything is rounded once.
struct PairOperands {
  static constexpr bool kTakesHalves = true;
  struct Left {
    const uint32_t* data;
    int64_t stride;
    Left from(int64_t row) const { return {data + row * stride, stride}; }
  };
  // A row of pairs holds two rows of numbers.
  struct Right {
    const uint32_t* data;
    int64_t stride;
    Right from_row(int64_t row) const { return {data + row / 2 * stride, stride}; }
    Right from_column(int64_t column) const { return {data + column, stride}; }
  };

  static int64_t pair_stride(int64_t width) { return pieces(padded(width), 2); }
  static int64_t left_floats(int64_t count, int64_t width) { return count * pair_stride(width); }
  static int64_t right_floats(int64_t count, int64_t width) {
    return pieces(count, 2) * padded(width);
  }
  static int64_t turned_floats(int64_t count, int64_t width) {
    return left_floats(count, width) + pair_stride(width) * spread(count);
  }
  static int64_t weight_floats(int64_t rows, int64_t columns) {
    return std::max(rows * pair_stride(columns), pieces(rows, 2) * spread(columns));
  }

  static Left left(const float* rows, int64_t stride, int64_t count, int64_t width,
                   Scratch& scratch) {
    auto* to = reinterpret_cast<uint32_t*>(scratch.take(left_floats(count, width)));
    round_rows(rows, stride, count, width, to, pair_stride(width));
    return {to, pair_stride(width)};
  }
  static Right right(const float* rows, int64_t stride, int64_t count, int64_t width,
                     Scratch& scratch) {
    auto* to = reinterpret_cast<uint32_t*>(scratch.take(right_floats(count, width)));
    pair_up(rows, stride, count, width, to, padded(width));
    return {to, padded(width)};
  }
  static Right turned(const float* rows, int64_t stride, int64_t count, int64_t width,
                      Scratch& scratch) {
    return turned(left(rows, stride, count, width, scratch), count, width, scratch);
  }

  // The same of 16-bit numbers. The left side is multiplied by `factor` before it is rounded.
  static Left left(const c10::BFloat16* rows, int64_t stride, int64_t count, int64_t width,
                   float factor, Scratch& scratch) {
    auto* to = reinterpret_cast<uint32_t*>(scratch.take(left_floats(count, width)));
    for (int64_t r = 0; r < count; r++) {
      auto* halves = reinterpret_cast<c10::BFloat16*>(to + r * pair_stride(width));
      scale_row(rows + r * stride, halves, width, factor);
      if (width % 2) halves[width] = 0.0f;
    }
    return {to, pair_stride(width)};
  }
  static Right right(const c10::BFloat16* rows, int64_t stride, int64_t count, int64_t width,
                     Scratch& scratch) {
    auto* to = reinterpret_cast<uint32_t*>(scratch.take(right_floats(count, width)));
    pair_up(rows, stride, count, width, to, padded(width));
    return {to, padded(width)};
  }
  static Right right(const Left& rows, int64_t count, int64_t width, Scratch& scratch) {
    return right(reinterpret_cast<const c10::BFloat16*>(rows.data), 2 * rows.stride, count, width,
                 scratch);
  }
  static Right turned(const c10::BFloat16* rows, int64_t stride, int64_t count, int64_t width,
                      Scratch& scratch) {
    Left words{reinterpret_cast<const uint32_t*>(rows), stride / 2};
    if (width % 2 || stride % 2) words = left(rows, stride, count, width, 1, scratch);
    return turned(words, count, width, scratch);
  }

  struct Weights {
    Weights(int64_t rows, int64_t columns, Scratch& scratch)
        : words(reinterpret_cast<uint32_t*>(scratch.take(weight_floats(rows, columns)))) {}
    void soften(float* scores, float* inverse_sum, float* log_sum, const ScoreBlock& block,
                bool) const {
      pair_softmax(scores, reinterpret_cast<c10::BFloat16*>(words), inverse_sum, log_sum, block);
    }
    void softened_times(const float*, const ScoreBlock& block, const Right& b, float* c,
                        int64_t ldc, int64_t n) const {
      multiply_pairs(words, pair_stride(block.length), 1, b.data, b.stride, c, ldc, block.rows, n,
                     pieces(block.length, 2), false);
    }
    void times(const float* weights, int64_t stride, int64_t rows, int64_t columns, const Right& b,
               float* c, int64_t ldc, int64_t n) const {
      int64_t step = pair_stride(columns);
      round_rows(weights, stride, rows, columns, words, step);
      multiply_pairs(words, step, 1, b.data, b.stride, c, ldc, rows, n, pieces(columns, 2), false);
    }
    void turned_times(const float* weights, int64_t stride, int64_t rows, int64_t columns,
                      const Right& b, float* c, int64_t ldc, int64_t n, bool add) const {
      int64_t step = spread(columns);
      pair_up(weights, stride, rows, columns, words, step);
      multiply_pairs(words, 1, step, b.data, b.stride, c, ldc, columns, n, pieces(rows, 2), add);
    }
    uint32_t* words;
  };

  static void multiply(const Left& a, const Right& b, float* c, int64_t ldc, int64_t m, int64_t n,
                       int64_t depth) {
    multiply_pairs(a.data, a.stride, 1, b.data, b.stride, c, ldc, m, n, pieces(depth, 2), false);
  }

 private:
  // The columns of `count` rows that hold `width` numbers as pairs.
  static Right turned(const Left& words, int64_t count, int64_t width, Scratch& scratch) {
    auto* to = reinterpret_cast<uint32_t*>(scratch.take(pair_stride(width) * spread(count)));
    turn_words(words.data, words.stride, count, pieces(width, 2), to, spread(count));
    return {to, spread(count)};
  }
  // Rounds rows; a row ends with a zero if its width is odd.
  static void round_rows(const float* rows, int64_t stride, int64_t count, int64_t width,
                         uint32_t* to, int64_t to_stride) {
    for (int64_t r = 0; r < count; r++) {
      auto* halves = reinterpret_cast<c10::BFloat16*>(to + r * to_stride);
      round_row(rows + r * stride, halves, width);
      if (width % 2) halves[width] = 0.0f;
    }
  }
  // Pairs of rows; the last row has a row of zeros beside it if their number is odd.
  template <typename T>
  static void pair_up(const T* rows, int64_t stride, int64_t count, int64_t width, uint32_t* to,
                      int64_t to_stride) {
    for (int64_t r = 0; r < count; r += 2) {
      const T* low = rows + r * stride;
      pair_rows(low, r + 1 < count ? low + stride : nullptr, to + r / 2 * to_stride, width);
    }
  }
};

}  // namespace docre
