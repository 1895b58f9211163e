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

#include "panel.hpp"
#include "tasks.hpp"

// Loops of constant length over registers.
#define DOCRE_UNROLL _Pragma("GCC unroll 24")

namespace docre {

constexpr int64_t kTileVectors = 3, kTilePairs = kTileVectors * kLanes;  // pairs side by side
constexpr int64_t kStepChannels = 2;  // head channels of a step forward
constexpr int64_t kGroupRows = 8;                                         // rows of the result that share a loaded vector
constexpr int64_t kWeightVectors = 4, kWeightRows = 6, kPairBlock = 128;  // of the weight's gradient

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

// Cuts `rows` into groups of at most Most that differ by one row and calls each(first, count).
template <int64_t Most, typename Each>
DOCRE_INLINE void for_groups(int64_t rows, const Each& each) {
  int64_t groups = (rows + Most - 1) / Most, first = 0;
  for (int64_t i = 1; i <= groups; i++) {
    int64_t end = i * rows / groups;
    each(first, end - first);
    first = end;
  }
}

// The same for any number of rows.
DOCRE_INLINE void rows_product(const float* scalars, int64_t row, int64_t step, const float* vectors, int64_t depth, float* result, int64_t rows) {
  int64_t groups = (rows + kGroupRows - 1) / kGroupRows;
  for (int64_t i = 0, r = 0; i < groups; i++) {
    int64_t end = (i + 1) * rows / groups;
    const float* from = scalars + r * row;
    float* to = result + r * kTilePairs;
    switch (end - r) {
      case 1: tile_product<1>(from, row, step, vectors, depth, to); break;
      case 2: tile_product<2>(from, row, step, vectors, depth, to); break;
      case 3: tile_product<3>(from, row, step, vectors, depth, to); break;
      case 4: tile_product<4>(from, row, step, vectors, depth, to); break;
      case 5: tile_product<5>(from, row, step, vectors, depth, to); break;
      case 6: tile_product<6>(from, row, step, vectors, depth, to); break;
      case 7: tile_product<7>(from, row, step, vectors, depth, to); break;
      default: tile_product<8>(from, row, step, vectors, depth, to);
    }
    r = end;
  }
}

// from: [pairs, width] → to: [width][kTilePairs] of the pairs of one tile, which start at zero; and back.
inline void to_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs;
  transpose(from + first * width, width, std::min(kTilePairs, pairs - first), width, to, kTilePairs);
}
inline void from_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs;
  transpose(from, kTilePairs, width, std::min(kTilePairs, pairs - first), to + first * width, width);
}

// The outer products of one head channel with the tail's channels of its block; outer: [b][kTilePairs].
DOCRE_CLONES void outer_products(const float* head, const float* tail, int64_t b, float* outer) {
  for (int64_t j = 0; j < b; j++)
    for (int64_t v = 0; v < kTilePairs; v += kLanes) {
      Floats h, t;
      load(head + v, h);
      load(tail + j * kTilePairs + v, t);
      store(outer + j * kTilePairs + v, h * t);
    }
}

// out [classes][kTilePairs] += weights [classes][depth] · outer [depth][kTilePairs].
DOCRE_CLONES void grouped_step(const float* weights, int64_t depth, const float* outer, float* out, int64_t classes) { rows_product(weights, depth, 1, outer, depth, out, classes); }

// Tail channels j..j+R of one step's gradients: u[j] = sum over classes of weights[class][j] · grad[class], in registers; `sum` gathers the
// head's gradient.
template <int R>
DOCRE_INLINE void inputs_tile(const float* weights, const float* grad, int64_t classes, const Floats* head, const float* tail, float* grad_tail, Floats* sum) {
  Floats u[R][kTileVectors] = {};
  for (int64_t c = 0; c < classes; c++) {
    Floats g[kTileVectors];
    DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) load(grad + c * kTilePairs + v * kLanes, g[v]);
    DOCRE_UNROLL for (int r = 0; r < R; r++) {
      float scalar = weights[c * R + r];
      DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) u[r][v] += g[v] * scalar;
    }
  }
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < kTileVectors; v++) {
      Floats t, old;
      load(tail + r * kTilePairs + v * kLanes, t);
      load(grad_tail + r * kTilePairs + v * kLanes, old);
      sum[v] += u[r][v] * t;
      store(grad_tail + r * kTilePairs + v * kLanes, old + u[r][v] * head[v]);
    }
}

// The gradient of one step with respect to head and tail. `weights`: for each 8 tail channels [classes][8], then for each left over [classes].
DOCRE_CLONES void grouped_step_backward(const float* weights, const float* head, const float* tail, int64_t b, const float* grad, int64_t classes, float* grad_head, float* grad_tail) {
  Floats h[kTileVectors], sum[kTileVectors] = {};
  for (int v = 0; v < kTileVectors; v++) load(head + v * kLanes, h[v]);
  int64_t j = 0;
  for (; j + kGroupRows <= b; j += kGroupRows) inputs_tile<kGroupRows>(weights + j * classes, grad, classes, h, tail + j * kTilePairs, grad_tail + j * kTilePairs, sum);
  for (; j < b; j++) inputs_tile<1>(weights + j * classes, grad, classes, h, tail + j * kTilePairs, grad_tail + j * kTilePairs, sum);
  for (int v = 0; v < kTileVectors; v++) store(grad_head + v * kLanes, sum[v]);
}

// Classes in groups of at most 24 / V rows that differ by one; each group's gradients lie together, [pairs][rows].
inline int64_t group_count(int64_t classes) { return (classes + kWeightRows - 1) / kWeightRows; }
inline int64_t group_start(int64_t classes, int64_t group) { return group * classes / group_count(classes); }
inline std::vector<float> in_groups(const float* grad, int64_t pairs, int64_t classes) {
  std::vector<float> groups(pairs * classes);
  for (int64_t g = 0; g < group_count(classes); g++) {
    int64_t first = group_start(classes, g), rows = group_start(classes, g + 1) - first;
    float* to = groups.data() + first * pairs;
    for (int64_t p = 0; p < pairs; p++) std::memcpy(to + p * rows, grad + p * classes + first, rows * sizeof(float));
  }
  return groups;
}

// result[r][lanes] += sum over p < pairs of grad[p][r] · outer[p][lanes]; the lanes are tail channels, rows of outer and result `stride` apart.
template <int R>
DOCRE_INLINE void weight_tile(const float* grad, const float* outer, int64_t stride, int64_t pairs, float* result) {
  Floats sum[R][kWeightVectors];
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < kWeightVectors; v++) load(result + r * stride + v * kLanes, sum[r][v]);
  for (int64_t p = 0; p < pairs; p++) {
    Floats x[kWeightVectors];
    DOCRE_UNROLL for (int v = 0; v < kWeightVectors; v++) load(outer + p * stride + v * kLanes, x[v]);
    DOCRE_UNROLL for (int r = 0; r < R; r++) {
      float scalar = grad[p * R + r];
      DOCRE_UNROLL for (int v = 0; v < kWeightVectors; v++) sum[r][v] += x[v] * scalar;
    }
  }
  DOCRE_UNROLL for (int r = 0; r < R; r++)
    DOCRE_UNROLL for (int v = 0; v < kWeightVectors; v++) store(result + r * stride + v * kLanes, sum[r][v]);
}

// One head channel of the weight's gradient over a run of pairs, added to `result` [classes][padded]: outer products with the tail's channels
// of the same block, made in `outer` [pairs][padded]. `grads`: the first of the run's pairs in the first group.
DOCRE_CLONES void grouped_step_weight(const float* head, const float* tail, int64_t width, int64_t b, int64_t padded, int64_t pairs, const float* grads, int64_t first_pair, int64_t all_pairs, int64_t classes, float* outer, float* result) {
  for (int64_t p = 0; p < pairs; p++)
    for (int64_t x = 0; x < b; x++) outer[p * padded + x] = head[p * width] * tail[p * width + x];
  for (int64_t g = 0; g < group_count(classes); g++) {
    int64_t first = group_start(classes, g), rows = group_start(classes, g + 1) - first;
    const float* own = grads + first * all_pairs + first_pair * rows;
    for (int64_t j = 0; j < padded; j += kWeightVectors * kLanes) {
      float* to = result + first * padded + j;
      switch (rows) {
        case 1: weight_tile<1>(own, outer + j, padded, pairs, to); break;
        case 2: weight_tile<2>(own, outer + j, padded, pairs, to); break;
        case 3: weight_tile<3>(own, outer + j, padded, pairs, to); break;
        case 4: weight_tile<4>(own, outer + j, padded, pairs, to); break;
        case 5: weight_tile<5>(own, outer + j, padded, pairs, to); break;
        default: weight_tile<6>(own, outer + j, padded, pairs, to);
      }
    }
  }
}

inline std::vector<float> lanes_of(const GroupedShape& shape, const float* from, int64_t width, int64_t first, int64_t last) {
  std::vector<float> lanes((last - first) * width * kTilePairs);
  for (int64_t t = first; t < last; t++) to_lanes(from, shape.pairs, width, t, lanes.data() + (t - first) * width * kTilePairs);
  return lanes;
}

// The weight's numbers for some head channels as [classes][channels · b]: rows of the weight lie a large power of two apart, which caches hate.
inline void take_slab(const GroupedShape& shape, const float* weight, int64_t channel, int64_t channels, float* slab) {
  int64_t count = channels * shape.b;
  for (int64_t c = 0; c < shape.classes; c++) std::memcpy(slab + c * count, weight + c * shape.stride() + channel * shape.b, count * sizeof(float));
}

// The same for the gradient's tiles: [classes][8] for each 8 tail channels, then [classes] for each left over.
inline void take_columns(const GroupedShape& shape, const float* weight, int64_t channel, float* slab) {
  for (int64_t j = 0; j < shape.b;) {
    int64_t count = j + kGroupRows <= shape.b ? kGroupRows : 1;
    for (int64_t c = 0; c < shape.classes; c++, slab += count) std::memcpy(slab, weight + c * shape.stride() + channel * shape.b + j, count * sizeof(float));
    j += count;
  }
}

// Every thread takes a run of tiles and walks through the weight once.
inline void grouped_forward(const GroupedShape& shape, const float* head, const float* tail, const float* weight, float* out) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    auto heads = lanes_of(shape, head, shape.width(), first, last), tails = lanes_of(shape, tail, shape.width(), first, last);
    std::vector<float> result((last - first) * shape.classes * kTilePairs), outer(kStepChannels * shape.b * kTilePairs), slab(shape.classes * kStepChannels * shape.b);
    for (int64_t x = 0; x < shape.width(); x += kStepChannels) {
      int64_t channels = std::min(kStepChannels, shape.width() - x);
      take_slab(shape, weight, x, channels, slab.data());
      for (int64_t t = 0; t < last - first; t++) {
        const float *own_heads = heads.data() + t * shape.width() * kTilePairs, *own_tails = tails.data() + t * shape.width() * kTilePairs;
        for (int64_t i = 0; i < channels; i++)
          outer_products(own_heads + (x + i) * kTilePairs, own_tails + (x + i) / shape.b * shape.b * kTilePairs, shape.b, outer.data() + i * shape.b * kTilePairs);
        grouped_step(slab.data(), channels * shape.b, outer.data(), result.data() + t * shape.classes * kTilePairs, shape.classes);
      }
    }
    for (int64_t t = first; t < last; t++) from_lanes(result.data() + (t - first) * shape.classes * kTilePairs, shape.pairs, shape.classes, t, out);
  });
}

inline void grouped_backward_inputs(const GroupedShape& shape, const float* head, const float* tail, const float* weight, const float* grad, float* grad_head, float* grad_tail) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    int64_t width = shape.width(), size = width * kTilePairs;
    auto heads = lanes_of(shape, head, width, first, last), tails = lanes_of(shape, tail, width, first, last), grads = lanes_of(shape, grad, shape.classes, first, last);
    std::vector<float> grad_heads(heads.size()), grad_tails(tails.size()), slab(shape.classes * shape.b);
    for (int64_t x = 0; x < width; x++) {
      take_columns(shape, weight, x, slab.data());
      for (int64_t t = 0; t < last - first; t++) {
        int64_t own = t * size + x * kTilePairs, block = t * size + x / shape.b * shape.b * kTilePairs;
        grouped_step_backward(slab.data(), heads.data() + own, tails.data() + block, shape.b, grads.data() + t * shape.classes * kTilePairs, shape.classes, grad_heads.data() + own,
                              grad_tails.data() + block);
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
  int64_t unit = kWeightVectors * kLanes, padded = (shape.b + unit - 1) / unit * unit;
  std::vector<float> grads = in_groups(grad, shape.pairs, shape.classes);
  at::parallel_for(0, shape.width(), grain, [&](int64_t first, int64_t last) {
    std::vector<float> outer(kPairBlock * padded), slab(shape.classes * padded);
    for (int64_t x = first; x < last; x++) {
      std::fill(slab.begin(), slab.end(), 0.0f);
      for (int64_t p = 0; p < shape.pairs; p += kPairBlock)
        grouped_step_weight(head + p * shape.width() + x, tail + p * shape.width() + x / shape.b * shape.b, shape.width(), shape.b, padded,
                            std::min(kPairBlock, shape.pairs - p), grads.data(), p, shape.pairs, shape.classes, outer.data(), slab.data());
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
