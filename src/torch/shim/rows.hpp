// Arithmetic on rows of numbers, sixteen at a time. Rows need not be aligned.
#pragma once
#include "simd.hpp"

namespace docre {

constexpr int64_t kBlockRows = 64;  // rows that a task holds at a time

// Copies rows of `width` numbers, converts them, and multiplies them by `factor` (and by a factor
// of their own if there is one).
template <typename From, typename To>
DOCRE_INLINE void copy_rows(const From* from, int64_t from_stride, To* to, int64_t to_stride,
                            int64_t rows, int64_t width, const float* row_factor, float factor) {
  for (int64_t i = 0; i < rows; i++) {
    float f = row_factor ? row_factor[i] * factor : factor;
    for (int64_t c = 0; c < width; c += kLanes) {
      Floats x;
      load_next(from + i * from_stride + c, width - c, x);
      store_next(to + i * to_stride + c, width - c, x * f);
    }
  }
}
DOCRE_CLONES void pack(const float* from, int64_t stride, float* to, int64_t to_stride,
                       int64_t rows, int64_t width, float factor) {
  copy_rows(from, stride, to, to_stride, rows, width, nullptr, factor);
}
DOCRE_CLONES void pack(const c10::BFloat16* from, int64_t stride, float* to, int64_t to_stride,
                       int64_t rows, int64_t width, float factor) {
  copy_rows(from, stride, to, to_stride, rows, width, nullptr, factor);
}
DOCRE_CLONES void unpack(const float* from, int64_t stride, float* to, int64_t to_stride,
                         int64_t rows, int64_t width, const float* row_factor, float factor) {
  copy_rows(from, stride, to, to_stride, rows, width, row_factor, factor);
}
DOCRE_CLONES void unpack(const float* from, int64_t stride, c10::BFloat16* to, int64_t to_stride,
                         int64_t rows, int64_t width, const float* row_factor, float factor) {
  copy_rows(from, stride, to, to_stride, rows, width, row_factor, factor);
}

// The dot product of two rows.
DOCRE_INLINE float dot(const float* a, const float* b, int64_t count) {
  Floats sum = {}, x, y;
  for (int64_t c = 0; c < count; c += kLanes) {
    load_next(a + c, count - c, x);
    load_next(b + c, count - c, y);
    sum += x * y;
  }
  return sum_lanes(sum);
}
DOCRE_CLONES float dot_row(const float* a, const float* b, int64_t count) {
  return dot(a, b, count);
}
// The dot products of rows that lie `stride` apart.
DOCRE_CLONES void dot_rows(const float* a, const float* b, int64_t stride, float* dots,
                           int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++) dots[i] = dot(a + i * stride, b + i * stride, width);
}

DOCRE_CLONES float sum_row(const float* a, int64_t count) {
  Floats sum = {}, x;
  for (int64_t c = 0; c < count; c += kLanes) {
    load_next(a + c, count - c, x);
    sum += x;
  }
  return sum_lanes(sum);
}
DOCRE_CLONES void add_scaled(const float* from, float factor, float* to, int64_t count) {
  for (int64_t c = 0; c < count; c++) to[c] += factor * from[c];
}
DOCRE_CLONES void scale_row(float* row, float factor, int64_t count) {
  for (int64_t c = 0; c < count; c++) row[c] *= factor;
}

}  // namespace docre
