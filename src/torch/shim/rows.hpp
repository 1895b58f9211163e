// Arithmetic on rows of numbers, sixteen at a time. Rows need not be aligned.
#pragma once
#include "simd.hpp"

namespace docre {

constexpr int64_t kBlockRows = 64;  // rows that a task holds at a time

// rows × width numbers, `stride` apart → contiguous floats times `factor`, and back.
template <typename From, typename To>
DOCRE_INLINE void copy_rows(const From* from, int64_t from_stride, To* to, int64_t to_stride,
                            int64_t rows, int64_t width, const float* row_factor, float factor) {
  for (int64_t i = 0; i < rows; i++) {
    float f = row_factor ? row_factor[i] * factor : factor;
    int64_t c = 0;
    Floats x;
    for (; c + kLanes <= width; c += kLanes) {
      load(from + i * from_stride + c, x);
      store(to + i * to_stride + c, x * f);
    }
    if (c < width) {
      load_some(from + i * from_stride + c, width - c, x);
      store_some(to + i * to_stride + c, width - c, x * f);
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

// Of rows `stride` apart.
DOCRE_CLONES void row_dots(const float* a, const float* b, int64_t stride, float* dots,
                           int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++) {
    Floats sum = {}, x, y;
    int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      load(a + i * stride + c, x);
      load(b + i * stride + c, y);
      sum += x * y;
    }
    if (c < width) {
      load_some(a + i * stride + c, width - c, x);
      load_some(b + i * stride + c, width - c, y);
      sum += x * y;
    }
    dots[i] = sum_lanes(sum);
  }
}

// Adds `count` numbers times `factor`; sums; products. Rows need not be aligned.
DOCRE_CLONES void add_scaled(const float* from, float factor, float* to, int64_t count) {
  for (int64_t l = 0; l < count; l++) to[l] += factor * from[l];
}
DOCRE_CLONES void scale_row(float* row, float factor, int64_t count) {
  for (int64_t l = 0; l < count; l++) row[l] *= factor;
}
DOCRE_CLONES float dot_row(const float* a, const float* b, int64_t count) {
  Floats sum = {}, x, y;
  int64_t l = 0;
  for (; l + kLanes <= count; l += kLanes) {
    load(a + l, x);
    load(b + l, y);
    sum += x * y;
  }
  if (l < count) {
    load_some(a + l, count - l, x);
    load_some(b + l, count - l, y);
    sum += x * y;
  }
  return sum_lanes(sum);
}
DOCRE_CLONES float sum_row(const float* a, int64_t count) {
  Floats sum = {}, x;
  int64_t l = 0;
  for (; l + kLanes <= count; l += kLanes) {
    load(a + l, x);
    sum += x;
  }
  if (l < count) {
    load_some(a + l, count - l, x);
    sum += x;
  }
  return sum_lanes(sum);
}

}  // namespace docre
