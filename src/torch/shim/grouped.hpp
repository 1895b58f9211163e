// Grouped bilinear layer (ATLOP): out[p, c] is the sum over blocks k and over i, j < b of head[p,
// k, i] · tail[p, k, j] · weight[c, k, i, j].
//
// The P × blocks·b·b outer products are never stored. On the CPU, pairs lie along the lanes (for
// the weight's gradient, tail channels do), a tile of the result stays in registers, and each
// number is summed in one fixed order. So the result of a pair depends neither on its neighbours
// nor on the number of threads. CUDA makes one block of outer products at a time.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "panel.hpp"
#include "tasks.hpp"

namespace docre {

constexpr int64_t kTilePairs = kPanel;  // pairs side by side
constexpr int64_t kStepChannels = 2;    // head channels of a step forward
constexpr int64_t kPairBlock = 128;     // pairs of a step of the weight's gradient

struct GroupedShape {
  int64_t pairs, blocks, b, classes;
  int64_t tiles() const { return pieces(pairs, kTilePairs); }
  int64_t width() const { return blocks * b; }
  int64_t stride() const { return blocks * b * b; }  // of a class in the weight
};

// Copies the pairs of one tile from [pairs, width] to [width][kTilePairs], and back. `to` starts
// with zeros.
inline void to_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs;
  transpose(from + first * width, width, std::min(kTilePairs, pairs - first), width, to,
            kTilePairs);
}
inline void from_lanes(const float* from, int64_t pairs, int64_t width, int64_t tile, float* to) {
  int64_t first = tile * kTilePairs;
  transpose(from, kTilePairs, width, std::min(kTilePairs, pairs - first), to + first * width,
            width);
}

// Copies `terms` rows of numbers, `stride` apart, to [terms][columns of the tile] for each tile of
// their columns, so that everything a tile of a product reads lies together.
inline void in_tiles(const float* from, int64_t stride, int64_t terms, int64_t columns, float* to) {
  for_tiles(columns, [&](int64_t first, int64_t count) {
    for (int64_t k = 0; k < terms; k++)
      std::memcpy(to + first * terms + k * count, from + k * stride + first, count * sizeof(float));
  });
}

// The outer products of one head channel and the tail channels of its block; outer:
// [b][kTilePairs].
DOCRE_CLONES void outer_products(const float* head, const float* tail, int64_t b, float* outer) {
  for (int64_t j = 0; j < b; j++)
    for (int64_t v = 0; v < kTilePairs; v += kLanes) {
      Floats h, t;
      load(head + v, h);
      load(tail + j * kTilePairs + v, t);
      store(outer + j * kTilePairs + v, h * t);
    }
}

// Adds to the gradients of a head channel and of its tail channels what the gradient of some of
// these outer products, [rows][kTilePairs], contributes.
DOCRE_CLONES void outer_products_backward(const float* outer, const float* head, const float* tail,
                                          int64_t rows, float* grad_head, float* grad_tail) {
  for (int64_t v = 0; v < kTilePairs; v += kLanes) {
    Floats h, sum;
    load(head + v, h);
    load(grad_head + v, sum);
    for (int64_t j = v; j < rows * kTilePairs; j += kTilePairs) {
      Floats u, t, old;
      load(outer + j, u);
      load(tail + j, t);
      load(grad_tail + j, old);
      sum += u * t;
      store(grad_tail + j, old + u * h);
    }
    store(grad_head + v, sum);
  }
}

// The outer products of one head channel and the tail channels of its block for consecutive pairs;
// outer: [pairs][padded].
DOCRE_CLONES void outer_rows(const float* head, const float* tail, int64_t width, int64_t b,
                             int64_t padded, int64_t pairs, float* outer) {
  for (int64_t p = 0; p < pairs; p++)
    for (int64_t j = 0; j < b; j++) outer[p * padded + j] = head[p * width] * tail[p * width + j];
}

inline std::vector<float> lanes_of(const GroupedShape& shape, const float* from, int64_t width,
                                   int64_t first, int64_t last) {
  std::vector<float> lanes((last - first) * width * kTilePairs);
  for (int64_t t = first; t < last; t++)
    to_lanes(from, shape.pairs, width, t, lanes.data() + (t - first) * width * kTilePairs);
  return lanes;
}

// Copies the weight of some head channels to [classes][channels · b]. In the weight itself, rows
// lie a large power of two apart, so that they compete for the same lines of the cache.
inline void take_slab(const GroupedShape& shape, const float* weight, int64_t channel,
                      int64_t channels, float* slab) {
  int64_t count = channels * shape.b;
  for (int64_t c = 0; c < shape.classes; c++)
    std::memcpy(slab + c * count, weight + c * shape.stride() + channel * shape.b,
                count * sizeof(float));
}

// Every thread takes some consecutive tiles and reads the weight once.
inline void grouped_forward(const GroupedShape& shape, const float* head, const float* tail,
                            const float* weight, float* out) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    auto heads = lanes_of(shape, head, shape.width(), first, last),
         tails = lanes_of(shape, tail, shape.width(), first, last);
    std::vector<float> result((last - first) * shape.classes * kTilePairs),
        outer(kStepChannels * shape.b * kTilePairs), slab(shape.classes * kStepChannels * shape.b);
    for (int64_t x = 0; x < shape.width(); x += kStepChannels) {
      int64_t channels = std::min(kStepChannels, shape.width() - x);
      take_slab(shape, weight, x, channels, slab.data());
      for (int64_t t = 0; t < last - first; t++) {
        const float *own_heads = heads.data() + t * shape.width() * kTilePairs,
                    *own_tails = tails.data() + t * shape.width() * kTilePairs;
        for (int64_t i = 0; i < channels; i++)
          outer_products(own_heads + (x + i) * kTilePairs,
                         own_tails + (x + i) / shape.b * shape.b * kTilePairs, shape.b,
                         outer.data() + i * shape.b * kTilePairs);
        int64_t depth = channels * shape.b;
        multiply_block(slab.data(), depth, 1, outer.data(), kTilePairs,
                       result.data() + t * shape.classes * kTilePairs, kTilePairs, shape.classes,
                       kTilePairs, depth, true);
      }
    }
    for (int64_t t = first; t < last; t++)
      from_lanes(result.data() + (t - first) * shape.classes * kTilePairs, shape.pairs,
                 shape.classes, t, out);
  });
}

inline void grouped_backward_inputs(const GroupedShape& shape, const float* head, const float* tail,
                                    const float* weight, const float* grad, float* grad_head,
                                    float* grad_tail) {
  at::parallel_for(0, shape.tiles(), 1, [&](int64_t first, int64_t last) {
    int64_t width = shape.width(), size = width * kTilePairs;
    auto heads = lanes_of(shape, head, width, first, last),
         tails = lanes_of(shape, tail, width, first, last),
         grads = lanes_of(shape, grad, shape.classes, first, last);
    std::vector<float> grad_heads(heads.size()), grad_tails(tails.size()),
        slab(shape.classes * shape.b);
    alignas(64) float outer[kTileRows * kTilePairs];
    for (int64_t x = 0; x < width; x++) {
      in_tiles(weight + x * shape.b, shape.stride(), shape.classes, shape.b, slab.data());
      for (int64_t t = 0; t < last - first; t++) {
        int64_t own = t * size + x * kTilePairs,
                block = t * size + x / shape.b * shape.b * kTilePairs;
        const float* grad_lanes = grads.data() + t * shape.classes * kTilePairs;
        for_tiles(shape.b, [&](int64_t j, int64_t rows) {
          multiply_block(slab.data() + j * shape.classes, 1, rows, grad_lanes, kTilePairs, outer,
                         kTilePairs, rows, kTilePairs, shape.classes, false);
          int64_t channels = block + j * kTilePairs;
          outer_products_backward(outer, heads.data() + own, tails.data() + channels, rows,
                                  grad_heads.data() + own, grad_tails.data() + channels);
        });
      }
    }
    for (int64_t t = first; t < last; t++) {
      from_lanes(grad_heads.data() + (t - first) * size, shape.pairs, width, t, grad_head);
      from_lanes(grad_tails.data() + (t - first) * size, shape.pairs, width, t, grad_tail);
    }
  });
}

// `grad_weight` starts with zeros.
inline void grouped_backward_weight(const GroupedShape& shape, const float* head, const float* tail,
                                    const float* grad, float* grad_weight) {
  // Head channels that make another thread worthwhile.
  int64_t channels_of_task = grain(1 << 22, shape.pairs * shape.b * shape.classes);
  int64_t wide = padded(shape.b);
  std::vector<float> grads(shape.pairs * shape.classes);
  in_tiles(grad, shape.classes, shape.pairs, shape.classes, grads.data());
  at::parallel_for(0, shape.width(), channels_of_task, [&](int64_t first, int64_t last) {
    std::vector<float> outer(kPairBlock * wide), slab(shape.classes * wide);
    for (int64_t x = first; x < last; x++) {
      for (int64_t p = 0; p < shape.pairs; p += kPairBlock) {
        int64_t pairs = std::min(kPairBlock, shape.pairs - p), at = p * shape.width();
        outer_rows(head + at + x, tail + at + x / shape.b * shape.b, shape.width(), shape.b, wide,
                   pairs, outer.data());
        for_tiles(shape.classes, [&](int64_t c, int64_t rows) {
          multiply_block(grads.data() + c * shape.pairs + p * rows, 1, rows, outer.data(), wide,
                         slab.data() + c * wide, wide, rows, wide, pairs, p > 0);
        });
      }
      for (int64_t c = 0; c < shape.classes; c++)
        std::memcpy(grad_weight + c * shape.stride() + x * shape.b, slab.data() + c * wide,
                    shape.b * sizeof(float));
    }
  });
}

struct GroupedBilinear : torch::autograd::Function<GroupedBilinear> {
  static GroupedShape shape_of(const at::Tensor& head, const at::Tensor& tail,
                               const at::Tensor& weight, int64_t blocks) {
    TORCH_CHECK(
        head.dim() == 2 && head.sizes() == tail.sizes() && blocks > 0 && head.size(1) % blocks == 0,
        "grouped bilinear: heads ", head.sizes(), " and tails ", tail.sizes(),
        " must be of one shape [pairs, width], whose width splits into ", blocks, " blocks");
    int64_t b = head.size(1) / blocks;
    TORCH_CHECK(weight.dim() == 2 && weight.size(1) == blocks * b * b,
                "grouped bilinear: the weight must be [classes, ", blocks * b * b, "], not ",
                weight.sizes());
    for (const at::Tensor* other : {&tail, &weight})
      TORCH_CHECK(
          other->scalar_type() == head.scalar_type() && other->device() == head.device(),
          "grouped bilinear: heads, tails and weight must be of one kind on one device, not ",
          head.scalar_type(), " on ", head.device(), " and ", other->scalar_type(), " on ",
          other->device());
    TORCH_CHECK(head.is_cuda() || head.scalar_type() == at::kFloat,
                "grouped bilinear: on the CPU numbers must be 32-bit floats, not ",
                head.scalar_type());
    return {head.size(0), blocks, b, weight.size(0)};
  }
  static at::Tensor part(const at::Tensor& z, const GroupedShape& shape, int64_t k) {
    return z.narrow(1, k * shape.b, shape.b);
  }
  static at::Tensor outer(const at::Tensor& head, const at::Tensor& tail, const GroupedShape& shape,
                          int64_t k) {
    return (part(head, shape, k).unsqueeze(2) * part(tail, shape, k).unsqueeze(1)).flatten(1);
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& head_any,
                            const at::Tensor& tail_any, const at::Tensor& weight_any,
                            int64_t blocks) {
    at::Tensor head = head_any.contiguous(), tail = tail_any.contiguous(),
               weight = weight_any.contiguous();
    GroupedShape shape = shape_of(head, tail, weight, blocks);
    ctx->save_for_backward({head, tail, weight});
    ctx->saved_data["blocks"] = blocks;
    at::Tensor out = at::zeros({shape.pairs, shape.classes}, head.options().dtype(at::kFloat));
    if (!head.is_cuda()) {
      grouped_forward(shape, head.const_data_ptr<float>(), tail.const_data_ptr<float>(),
                      weight.const_data_ptr<float>(), out.mutable_data_ptr<float>());
      return out;
    }
    int64_t square = shape.b * shape.b;
    for (int64_t k = 0; k < blocks; k++)
      out += outer(head, tail, shape, k)
                 .matmul(weight.narrow(1, k * square, square).t())
                 .to(at::kFloat);
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &head = saved[0], &tail = saved[1], &weight = saved[2];
    GroupedShape shape = shape_of(head, tail, weight, ctx->saved_data["blocks"].toInt());
    at::Tensor grad = grads[0].to(head.scalar_type()).contiguous(), grad_head, grad_tail,
               grad_weight = at::zeros_like(weight);
    if (head.is_cuda()) return on_cuda(head, tail, weight, grad, grad_weight, shape);
    grad_head = at::empty_like(head);
    grad_tail = at::empty_like(tail);
    const float *h = head.const_data_ptr<float>(), *t = tail.const_data_ptr<float>(),
                *g = grad.const_data_ptr<float>();
    grouped_backward_inputs(shape, h, t, weight.const_data_ptr<float>(), g,
                            grad_head.mutable_data_ptr<float>(),
                            grad_tail.mutable_data_ptr<float>());
    grouped_backward_weight(shape, h, t, g, grad_weight.mutable_data_ptr<float>());
    return {grad_head, grad_tail, grad_weight, at::Tensor()};
  }
  static torch::autograd::variable_list on_cuda(const at::Tensor& head, const at::Tensor& tail,
                                                const at::Tensor& weight, const at::Tensor& grad,
                                                at::Tensor& grad_weight,
                                                const GroupedShape& shape) {
    at::Tensor grad_head = at::empty_like(head), grad_tail = at::empty_like(tail);
    int64_t square = shape.b * shape.b;
    for (int64_t k = 0; k < shape.blocks; k++) {
      grad_weight.narrow(1, k * square, square).copy_(grad.t().matmul(outer(head, tail, shape, k)));
      at::Tensor inner =
          grad.matmul(weight.narrow(1, k * square, square)).view({shape.pairs, shape.b, shape.b});
      part(grad_head, shape, k).copy_(inner.bmm(part(tail, shape, k).unsqueeze(2)).squeeze(2));
      part(grad_tail, shape, k)
          .copy_(inner.transpose(1, 2).bmm(part(head, shape, k).unsqueeze(2)).squeeze(2));
    }
    return {grad_head, grad_tail, grad_weight, at::Tensor()};
  }
};

}  // namespace docre
