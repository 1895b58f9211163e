// Grouped bilinear layer (ATLOP): out[p, c] = sum over blocks k and i, j < b of head[p, k, i] · tail[p, k, j] · weight[c, k, i, j].
// The P × blocks·b·b outer products are never stored. CPU: pairs (or, for the weight's gradient, tail channels) lie along the lanes, a tile
// of the result stays in registers, and each number is added up in one fixed order, so that a pair's result does not depend on its
// neighbours or on the number of threads. CUDA: one block of outer products at a time.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "simd.hpp"
#include "tasks.hpp"

// Loops of constant length over registers.
#define DOCRE_UNROLL _Pragma("GCC unroll 24")

namespace docre {

constexpr int64_t kTileVectors = 3, kTilePairs = kTileVectors * kLanes;  // pairs side by side
constexpr int64_t kGroupRows = 8;                                         // rows of the result that share a loaded vector
constexpr int64_t kWeightVectors = 4, kPairBlock = 128;                  // of the weight's gradient

struct GroupedShape {
  int64_t pairs, blocks, b, classes;
  int64_t tiles() const { return (pairs + kTilePairs - 1) / kTilePairs; }
  int64_t width() const { return blocks * b; }
  int64_t stride() const { return blocks * b * b; }  // of a class in the weight
};

// result[r][lanes] += sum over n < depth of scalars[r · row + n · step] · vectors[n][lanes], for R rows.
template <int R>
DOCRE_INLINE void tile_product(const float* scalars, int64_t row, int64_t step, const float* vectors, int64_t depth, float* result) {
  Floats sum[R][kTileVectors];
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) load(result + r * kTilePairs + v * kLanes, sum[r][v]);
  for (int64_t n = 0; n < depth; n++) {
    Floats x[kTileVectors];
    DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) load(vectors + n * kTilePairs + v * kLanes, x[v]);
    DOCRE_UNROLL for (int r = 0; r < R; r++) {
      float scalar = scalars[r * row + n * step];
      DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) sum[r][v] += x[v] * scalar;
    }
  }
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) store(result + r * kTilePairs + v * kLanes, sum[r][v]);
}

// The same for any number of rows.
DOCRE_INLINE void rows_product(const float* scalars, int64_t row, int64_t step, const float* vectors, int64_t depth, float* result, int64_t rows) {
  int64_t r = 0;
  for (; r + kGroupRows <= rows; r += kGroupRows) tile_product<kGroupRows>(scalars + r * row, row, step, vectors, depth, result + r * kTilePairs);
  for (; r < rows; r++) tile_product<1>(scalars + r * row, row, step, vectors, depth, result + r * kTilePairs);
}

// from: [pairs, width] → to: [width][kTilePairs] of the pairs of one tile; zero where there is no pair.
DOCRE_CLONES void to_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs, count = std::min(kTilePairs, pairs - first);
  for (int64_t x = 0; x < width; x++)
    for (int64_t p = 0; p < kTilePairs; p++) to[x * kTilePairs + p] = p < count ? from[(first + p) * width + x] : 0.0f;
}
DOCRE_CLONES void from_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs, count = std::min(kTilePairs, pairs - first);
  for (int64_t p = 0; p < count; p++)
    for (int64_t x = 0; x < width; x++) to[(first + p) * width + x] = from[x * kTilePairs + p];
}

// One (block, i) of one tile: `outer` is scratch [b][kTilePairs]; head: the lanes of channel (k, i); tail: [b][kTilePairs].
DOCRE_CLONES void grouped_step(const float* weight, int64_t class_stride, const float* head, const float* tail, int64_t b, float* outer, float* out, int64_t classes) {
  for (int64_t j = 0; j < b; j++)
    for (int64_t v = 0; v < kTilePairs; v += kLanes) {
      Floats h, t;
      load(head + v, h);
      load(tail + j * kTilePairs + v, t);
      store(outer + j * kTilePairs + v, h * t);
    }
  rows_product(weight, class_stride, 1, outer, b, out, classes);
}

// The gradient of the same step with respect to head and tail; `inner` is scratch [b][kTilePairs].
DOCRE_CLONES void grouped_step_backward(const float* weight, int64_t class_stride, const float* head, const float* tail, int64_t b, float* inner, const float* grad, int64_t classes, float* grad_head, float* grad_tail) {
  std::memset(inner, 0, b * kTilePairs * sizeof(float));
  rows_product(weight, 1, class_stride, grad, classes, inner, b);
  for (int64_t v = 0; v < kTilePairs; v += kLanes) {
    Floats h, sum = {};
    load(head + v, h);
    for (int64_t j = 0; j < b; j++) {
      Floats u, t, g;
      load(inner + j * kTilePairs + v, u);
      load(tail + j * kTilePairs + v, t);
      load(grad_tail + j * kTilePairs + v, g);
      sum += u * t;
      store(grad_tail + j * kTilePairs + v, g + u * h);
    }
    store(grad_head + v, sum);
  }
}

// result[r][lanes] += sum over p < pairs of grad[p · classes + r] · outer[p][lanes]; the lanes are tail channels, rows are `stride` apart.
template <int R, int V>
DOCRE_INLINE void weight_tile(const float* grad, int64_t classes, const float* outer, int64_t stride, int64_t pairs, float* result) {
  Floats sum[R][V];
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < V; v++) load(result + r * stride + v * kLanes, sum[r][v]);
  for (int64_t p = 0; p < pairs; p++) {
    Floats x[V];
    DOCRE_UNROLL for (int v = 0; v < V; v++) load(outer + p * stride + v * kLanes, x[v]);
    DOCRE_UNROLL for (int r = 0; r < R; r++) {
      float scalar = grad[p * classes + r];
      DOCRE_UNROLL for (int v = 0; v < V; v++) sum[r][v] += x[v] * scalar;
    }
  }
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < V; v++) store(result + r * stride + v * kLanes, sum[r][v]);
}

template <int V>
DOCRE_INLINE void weight_rows(const float* grad, int64_t classes, const float* outer, int64_t stride, int64_t pairs, float* result) {
  constexpr int R = 24 / V;
  int64_t r = 0;
  for (; r + R <= classes; r += R) weight_tile<R, V>(grad + r, classes, outer, stride, pairs, result + r * stride);
  for (; r < classes; r++) weight_tile<1, V>(grad + r, classes, outer, stride, pairs, result + r * stride);
}

// One head channel of the weight's gradient over a run of pairs, added to `result` [classes][b rounded up to the lanes]: outer products
// with the tail's channels of the same block, made in `outer` [pairs][b rounded up].
DOCRE_CLONES void grouped_step_weight(const float* head, const float* tail, int64_t width, int64_t b, int64_t pairs, const float* grad, int64_t classes, float* outer, float* result) {
  int64_t padded = (b + kLanes - 1) / kLanes * kLanes, j = 0;
  for (int64_t p = 0; p < pairs; p++)
    for (int64_t x = 0; x < b; x++) outer[p * padded + x] = head[p * width] * tail[p * width + x];
  for (; j + kWeightVectors * kLanes <= padded; j += kWeightVectors * kLanes) weight_rows<kWeightVectors>(grad, classes, outer + j, padded, pairs, result + j);
  for (; j < padded; j += kLanes) weight_rows<1>(grad, classes, outer + j, padded, pairs, result + j);
}

inline std::vector<float> lanes_of(const GroupedShape& shape, const float* from, int64_t width, int64_t first, int64_t last) {
  std::vector<float> lanes((last - first) * width * kTilePairs);
  for (int64_t t = first; t < last; t++) to_lanes(from, shape.pairs, width, t, lanes.data() + (t - first) * width * kTilePairs);
  return lanes;
}

// The weight's numbers for one head channel as [classes][b] side by side: rows of the weight lie a large power of two apart, which caches hate.
inline void take_slab(const GroupedShape& shape, const float* weight, int64_t channel, float* slab) {
  for (int64_t c = 0; c < shape.classes; c++) std::memcpy(slab + c * shape.b, weight + c * shape.stride() + channel * shape.b, shape.b * sizeof(float));
}

// Every thread takes a run of tiles and walks through the weight once.
inline void grouped_forward(const GroupedShape& shape, const float* head, const float* tail, const float* weight, float* out) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    auto heads = lanes_of(shape, head, shape.width(), first, last), tails = lanes_of(shape, tail, shape.width(), first, last);
    std::vector<float> result((last - first) * shape.classes * kTilePairs), outer(shape.b * kTilePairs), slab(shape.classes * shape.b);
    for (int64_t x = 0; x < shape.width(); x++) {
      take_slab(shape, weight, x, slab.data());
      for (int64_t t = 0; t < last - first; t++)
        grouped_step(slab.data(), shape.b, heads.data() + (t * shape.width() + x) * kTilePairs,
                     tails.data() + (t * shape.width() + x / shape.b * shape.b) * kTilePairs, shape.b, outer.data(),
                     result.data() + t * shape.classes * kTilePairs, shape.classes);
    }
    for (int64_t t = first; t < last; t++) from_lanes(result.data() + (t - first) * shape.classes * kTilePairs, shape.pairs, shape.classes, t, out);
  });
}

inline void grouped_backward_inputs(const GroupedShape& shape, const float* head, const float* tail, const float* weight, const float* grad, float* grad_head, float* grad_tail) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    int64_t width = shape.width(), size = width * kTilePairs;
    auto heads = lanes_of(shape, head, width, first, last), tails = lanes_of(shape, tail, width, first, last), grads = lanes_of(shape, grad, shape.classes, first, last);
    std::vector<float> grad_heads(heads.size()), grad_tails(tails.size()), inner(shape.b * kTilePairs), slab(shape.classes * shape.b);
    for (int64_t x = 0; x < width; x++) {
      take_slab(shape, weight, x, slab.data());
      for (int64_t t = 0; t < last - first; t++) {
        int64_t own = t * size + x * kTilePairs, block = t * size + x / shape.b * shape.b * kTilePairs;
        grouped_step_backward(slab.data(), shape.b, heads.data() + own, tails.data() + block, shape.b, inner.data(),
                              grads.data() + t * shape.classes * kTilePairs, shape.classes, grad_heads.data() + own, grad_tails.data() + block);
      }
    }
    for (int64_t t = first; t < last; t++) {
      from_lanes(grad_heads.data() + (t - first) * size, shape.pairs, width, t, grad_head);
      from_lanes(grad_tails.data() + (t - first) * size, shape.pairs, width, t, grad_tail);
    }
  });
}

// grad_weight starts at zero.
inline void grouped_backward_weight(const GroupedShape& shape, const float* head, const float* tail, const float* grad, float* grad_weight) {
  // Head channels that are worth another thread.
  int64_t grain = std::max<int64_t>(1, (1 << 22) / std::max<int64_t>(1, shape.pairs * shape.b * shape.classes));
  at::parallel_for(0, shape.width(), grain, [&](int64_t first, int64_t last) {
    int64_t padded = (shape.b + kLanes - 1) / kLanes * kLanes;
    std::vector<float> outer(kPairBlock * padded), slab(shape.classes * padded);
    for (int64_t x = first; x < last; x++) {
      std::fill(slab.begin(), slab.end(), 0.0f);
      for (int64_t p = 0; p < shape.pairs; p += kPairBlock)
        grouped_step_weight(head + p * shape.width() + x, tail + p * shape.width() + x / shape.b * shape.b, shape.width(), shape.b,
                            std::min(kPairBlock, shape.pairs - p), grad + p * shape.classes, shape.classes, outer.data(), slab.data());
      for (int64_t c = 0; c < shape.classes; c++) std::memcpy(grad_weight + c * shape.stride() + x * shape.b, slab.data() + c * padded, shape.b * sizeof(float));
    }
  });
}

struct GroupedBilinear : torch::autograd::Function<GroupedBilinear> {
  static GroupedShape shape_of(const at::Tensor& head, const at::Tensor& tail, const at::Tensor& weight, int64_t blocks) {
    TORCH_CHECK(head.dim() == 2 && head.sizes() == tail.sizes() && blocks > 0 && head.size(1) % blocks == 0, "grouped bilinear: ", head.sizes(), " and ", tail.sizes(), " do not split into ", blocks, " blocks");
    int64_t b = head.size(1) / blocks;
    TORCH_CHECK(weight.dim() == 2 && weight.size(1) == blocks * b * b, "grouped bilinear: weight ", weight.sizes(), " should have ", blocks * b * b, " columns");
    TORCH_CHECK(head.scalar_type() == weight.scalar_type() && tail.scalar_type() == weight.scalar_type(), "grouped bilinear: kinds differ");
    TORCH_CHECK(head.is_cuda() || head.scalar_type() == at::kFloat, "grouped bilinear: kind ", head.scalar_type(), " is not supported on the CPU");
    return {head.size(0), blocks, b, weight.size(0)};
  }
  static at::Tensor part(const at::Tensor& z, const GroupedShape& shape, int64_t k) { return z.narrow(1, k * shape.b, shape.b); }
  static at::Tensor outer(const at::Tensor& head, const at::Tensor& tail, const GroupedShape& shape, int64_t k) {
    return (part(head, shape, k).unsqueeze(2) * part(tail, shape, k).unsqueeze(1)).flatten(1);
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& head_any, const at::Tensor& tail_any, const at::Tensor& weight_any, int64_t blocks) {
    at::Tensor head = head_any.contiguous(), tail = tail_any.contiguous(), weight = weight_any.contiguous();
    GroupedShape shape = shape_of(head, tail, weight, blocks);
    ctx->save_for_backward({head, tail, weight});
    ctx->saved_data["blocks"] = blocks;
    at::Tensor out = at::zeros({shape.pairs, shape.classes}, head.options().dtype(at::kFloat));
    if (!head.is_cuda()) {
      grouped_forward(shape, head.const_data_ptr<float>(), tail.const_data_ptr<float>(), weight.const_data_ptr<float>(), out.mutable_data_ptr<float>());
      return out;
    }
    int64_t square = shape.b * shape.b;
    for (int64_t k = 0; k < blocks; k++) out += outer(head, tail, shape, k).matmul(weight.narrow(1, k * square, square).t()).to(at::kFloat);
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &head = saved[0], &tail = saved[1], &weight = saved[2];
    GroupedShape shape = shape_of(head, tail, weight, ctx->saved_data["blocks"].toInt());
    at::Tensor grad = grads[0].to(head.scalar_type()).contiguous(), grad_head, grad_tail, grad_weight = at::zeros_like(weight);
    if (head.is_cuda()) return on_cuda(head, tail, weight, grad, grad_weight, shape);
    grad_head = at::empty_like(head);
    grad_tail = at::empty_like(tail);
    const float *h = head.const_data_ptr<float>(), *t = tail.const_data_ptr<float>(), *g = grad.const_data_ptr<float>();
    grouped_backward_inputs(shape, h, t, weight.const_data_ptr<float>(), g, grad_head.mutable_data_ptr<float>(), grad_tail.mutable_data_ptr<float>());
    grouped_backward_weight(shape, h, t, g, grad_weight.mutable_data_ptr<float>());
    return {grad_head, grad_tail, grad_weight, at::Tensor()};
  }
  static torch::autograd::variable_list on_cuda(const at::Tensor& head, const at::Tensor& tail, const at::Tensor& weight, const at::Tensor& grad, at::Tensor& grad_weight, const GroupedShape& shape) {
    at::Tensor grad_head = at::empty_like(head), grad_tail = at::empty_like(tail);
    int64_t square = shape.b * shape.b;
    for (int64_t k = 0; k < shape.blocks; k++) {
      grad_weight.narrow(1, k * square, square).copy_(grad.t().matmul(outer(head, tail, shape, k)));
      at::Tensor inner = grad.matmul(weight.narrow(1, k * square, square)).view({shape.pairs, shape.b, shape.b});
      part(grad_head, shape, k).copy_(inner.bmm(part(tail, shape, k).unsqueeze(2)).squeeze(2));
      part(grad_tail, shape, k).copy_(inner.transpose(1, 2).bmm(part(head, shape, k).unsqueeze(2)).squeeze(2));
    }
    return {grad_head, grad_tail, grad_weight, at::Tensor()};
  }
};

}  // namespace docre
