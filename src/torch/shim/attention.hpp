// Self-attention inside each document of a packed token stream, without padding.
//
// On the CPU, each (document, head) is one task. Blocks of score rows stay in the cache, and
// backward recomputes the probabilities from the log-sum-exp of each row. A task copies its
// operands into its own aligned buffers and multiplies them with the tiles of panel.hpp, so its
// bits depend on the document alone.
//
// On CUDA, 16-bit kinds use flash attention with cumulative lengths. Other kinds use padding and
// scaled_dot_product_attention.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>

#include "checks.hpp"
#include "dropout.hpp"
#include "panel.hpp"
#include "rows.hpp"
#include "scratch.hpp"
#include "tasks.hpp"

namespace docre {

// What forward and backward know about one call.
struct AttentionShape {
  int64_t tokens, heads, width;
  const int64_t* offsets;
  int64_t documents;
  const int64_t* keys;  // null: no dropout
  uint64_t salt;
  uint32_t threshold;
  float keep_scale;
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(width)); }
  int64_t row_stride() const { return 3 * heads * width; }
};

// A block of rows of scores, as the kernels below see it.
struct ScoreBlock {
  int64_t rows, length, stride;
  const int64_t* keys;  // of the block's first row
  uint64_t salt;
  uint32_t threshold;
  float keep_scale;
};

// Turns scores into exp(score - max), sets what the dropout mask drops to zero, and writes 1/sum
// and the log-sum-exp of each row.
DOCRE_CLONES void softmax_rows(float* scores, float* inverse_sum, float* log_sum,
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
      exponential(x);
      sum += x;
      store(row + j, x);
    }
    float total = sum_lanes(sum);
    inverse_sum[i] = 1.0f / total;
    log_sum[i] = shift + std::log(total);
    if (!block.keys) continue;
    RowKey key = row_key(block.keys[i], block.salt);
    for (int64_t j = 0; j < block.stride; j += kLanes) {
      Words mask;
      keep_mask(key, static_cast<uint32_t>(j), block.threshold, mask);
      load(row + j, x);
      store(row + j, (Floats)((Words)(x * block.keep_scale) & mask));
    }
  }
}

// Turns scores into the dropped and scaled probabilities P, and dP into dS, both in place. `delta`
// is the sum of grad · out over each row.
DOCRE_CLONES void softmax_rows_backward(float* scores, float* grads, const float* log_sum,
                                        const float* delta, const ScoreBlock& block) {
  for (int64_t i = 0; i < block.rows; i++) {
    float *row = scores + i * block.stride, *grad = grads + i * block.stride;
    RowKey key = block.keys ? row_key(block.keys[i], block.salt) : RowKey{};
    for (int64_t j = 0; j < block.stride; j += kLanes) {
      Floats p, g, dropped;
      load(row + j, p);
      load(grad + j, g);
      p -= log_sum[i];
      exponential(p);
      dropped = p;
      if (block.keys) {
        Words mask;
        keep_mask(key, static_cast<uint32_t>(j), block.threshold, mask);
        dropped = (Floats)((Words)(p * block.keep_scale) & mask);
        g = (Floats)((Words)(g * block.keep_scale) & mask);
      }
      store(row + j, dropped);
      store(grad + j, p * (g - delta[i]));
    }
  }
}

// Runs task(document, head) for all of them, long documents first, on whichever thread is free.
template <typename Task>
void for_each_task(const AttentionShape& shape, const Task& task) {
  auto length = [&](int64_t i) {
    return shape.offsets[i / shape.heads + 1] - shape.offsets[i / shape.heads];
  };
  for_each_by_size(shape.documents * shape.heads, length,
                   [&](int64_t i) { task(i / shape.heads, i % shape.heads); });
}

// A block of rows of one head. `keys` are those of its rows, or null.
inline ScoreBlock score_block(const AttentionShape& shape, int64_t head, int64_t rows,
                              int64_t length, const int64_t* keys) {
  uint64_t salt = shape.salt * 0x2545f4914f6cdd1dull + static_cast<uint64_t>(head) + 1;
  return {rows, length, spread(length), keys, salt, shape.threshold, shape.keep_scale};
}
inline ScoreBlock block_at(const AttentionShape& shape, int64_t start, int64_t length, int64_t row,
                           int64_t head) {
  return score_block(shape, head, std::min(kBlockRows, length - row), length,
                     shape.keys ? shape.keys + start + row : nullptr);
}

// qkv: [T, 3, heads, width]; out: [T, heads · width]; log_sum: [heads, T].
template <typename T>
void attention_forward(const AttentionShape& shape, const T* qkv, T* out, float* log_sum) {
  for_each_task(shape, [&](int64_t document, int64_t head) {
    int64_t start = shape.offsets[document], length = shape.offsets[document + 1] - start,
            d = shape.width, wide = padded(d);
    int64_t model = shape.heads * d, stride = spread(length);
    Scratch scratch(3 * length * wide + d * stride + kBlockRows * (stride + wide + 1));
    float *q = scratch.take(length * wide), *k = scratch.take(length * wide),
          *v = scratch.take(length * wide), *turned = scratch.take(d * stride);
    float *s = scratch.take(kBlockRows * stride), *o = scratch.take(kBlockRows * wide),
          *inverse = scratch.take(kBlockRows);
    const T* first = qkv + start * shape.row_stride() + head * d;
    pack(first, shape.row_stride(), q, wide, length, d, shape.scale());
    pack(first + model, shape.row_stride(), k, wide, length, d, 1);
    pack(first + 2 * model, shape.row_stride(), v, wide, length, d, 1);
    transpose(k, wide, length, d, turned, stride);
    for (int64_t row = 0; row < length; row += kBlockRows) {
      ScoreBlock block = block_at(shape, start, length, row, head);
      multiply_block(q + row * wide, wide, 1, turned, stride, s, stride, block.rows, length, d,
                     false);
      softmax_rows(s, inverse, log_sum + head * shape.tokens + start + row, block);
      multiply_block(s, stride, 1, v, wide, o, wide, block.rows, d, length, false);
      unpack(o, wide, out + (start + row) * model + head * d, model, block.rows, d, inverse, 1);
    }
  });
}

// The gradient of attention_forward with respect to qkv. Every element of `grad_qkv` is written
// once.
template <typename T>
void attention_backward(const AttentionShape& shape, const T* qkv, const T* out,
                        const float* log_sum, const T* grad_out, T* grad_qkv) {
  for_each_task(shape, [&](int64_t document, int64_t head) {
    int64_t start = shape.offsets[document], length = shape.offsets[document + 1] - start,
            d = shape.width, wide = padded(d);
    int64_t model = shape.heads * d, stride = spread(length);
    Scratch scratch(5 * length * wide + 2 * d * stride + kBlockRows * (2 * stride + 3 * wide + 1));
    float *q = scratch.take(length * wide), *k = scratch.take(length * wide),
          *v = scratch.take(length * wide);
    float *turned_k = scratch.take(d * stride), *turned_v = scratch.take(d * stride);
    float *dk = scratch.take(length * wide), *dv = scratch.take(length * wide),
          *dq = scratch.take(kBlockRows * wide);
    float *s = scratch.take(kBlockRows * stride), *ds = scratch.take(kBlockRows * stride);
    float *g = scratch.take(kBlockRows * wide), *o = scratch.take(kBlockRows * wide),
          *delta = scratch.take(kBlockRows);
    int64_t place = start * shape.row_stride() + head * d;
    pack(qkv + place, shape.row_stride(), q, wide, length, d, shape.scale());
    pack(qkv + place + model, shape.row_stride(), k, wide, length, d, 1);
    pack(qkv + place + 2 * model, shape.row_stride(), v, wide, length, d, 1);
    transpose(k, wide, length, d, turned_k, stride);
    transpose(v, wide, length, d, turned_v, stride);
    for (int64_t row = 0; row < length; row += kBlockRows) {
      ScoreBlock block = block_at(shape, start, length, row, head);
      int64_t out_place = (start + row) * model + head * d;
      pack(grad_out + out_place, model, g, wide, block.rows, d, 1);
      pack(out + out_place, model, o, wide, block.rows, d, 1);
      dot_rows(g, o, wide, delta, block.rows, d);
      multiply_block(q + row * wide, wide, 1, turned_k, stride, s, stride, block.rows, length, d,
                     false);
      multiply_block(g, wide, 1, turned_v, stride, ds, stride, block.rows, length, d, false);
      softmax_rows_backward(s, ds, log_sum + head * shape.tokens + start + row, delta, block);
      multiply_block(s, 1, stride, g, wide, dv, wide, length, d, block.rows, row > 0);
      multiply_block(ds, 1, stride, q + row * wide, wide, dk, wide, length, d, block.rows, row > 0);
      multiply_block(ds, stride, 1, k, wide, dq, wide, block.rows, d, length, false);
      unpack(dq, wide, grad_qkv + place + row * shape.row_stride(), shape.row_stride(), block.rows,
             d, nullptr, shape.scale());
    }
    unpack(dk, wide, grad_qkv + place + model, shape.row_stride(), length, d, nullptr, 1);
    unpack(dv, wide, grad_qkv + place + 2 * model, shape.row_stride(), length, d, nullptr, 1);
  });
}

// Checks the arguments of a call. `who` names the caller in error messages.
inline AttentionShape shape_of(const char* who, const at::Tensor& qkv, const at::Tensor& offsets,
                               const std::optional<at::Tensor>& keys, int64_t salt, double p) {
  TORCH_CHECK(qkv.dim() == 4 && qkv.size(1) == 3 && qkv.is_contiguous() && qkv.device().is_cpu(),
              who, ": qkv must be contiguous [tokens, 3, heads, width of a head] on the CPU, not ",
              qkv.sizes(), " on ", qkv.device());
  const int64_t tokens = qkv.size(0), *offset = checked_offsets(who, offsets, tokens);
  TORCH_CHECK(!keys || (is_host_table(*keys) && keys->numel() == tokens), who,
              ": dropout needs one int64 key a token on the host, ", tokens, " in all, not ",
              keys->sizes(), " of ", keys->scalar_type(), " on ", keys->device());
  return {tokens,
          qkv.size(2),
          qkv.size(3),
          offset,
          offsets.numel() - 1,
          keys ? keys->const_data_ptr<int64_t>() : nullptr,
          static_cast<uint64_t>(salt),
          threshold_of(p),
          static_cast<float>(1.0 / (1.0 - p))};
}

struct VarlenAttention : torch::autograd::Function<VarlenAttention> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& qkv,
                            const at::Tensor& offsets, const std::optional<at::Tensor>& keys,
                            int64_t salt, double p) {
    AttentionShape shape = shape_of("attention", qkv, offsets, keys, salt, p);
    at::Tensor out = at::empty({shape.tokens, shape.heads * shape.width}, qkv.options());
    at::Tensor log_sum = at::empty({shape.heads, shape.tokens}, qkv.options().dtype(at::kFloat));
    for_kind("attention", qkv, [&](auto zero) {
      using T = decltype(zero);
      attention_forward(shape, qkv.const_data_ptr<T>(), out.mutable_data_ptr<T>(),
                        log_sum.mutable_data_ptr<float>());
    });
    ctx->save_for_backward({qkv, out, log_sum, offsets, keys ? *keys : at::Tensor()});
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &qkv = saved[0], &out = saved[1];
    auto keys = saved[4].defined() ? std::optional<at::Tensor>(saved[4]) : std::nullopt;
    AttentionShape shape =
        shape_of("attention", qkv, saved[3], keys, ctx->saved_data["salt"].toInt(),
                 ctx->saved_data["p"].toDouble());
    at::Tensor grad_out = grads[0].contiguous(), grad = at::empty_like(qkv);
    for_kind("attention", qkv, [&](auto zero) {
      using T = decltype(zero);
      attention_backward(shape, qkv.const_data_ptr<T>(), out.const_data_ptr<T>(),
                         saved[2].const_data_ptr<float>(), grad_out.const_data_ptr<T>(),
                         grad.mutable_data_ptr<T>());
    });
    return {grad, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Flash attention over the packed stream, for 16-bit kinds on CUDA. Dropout is libtorch's own.
// `device_offsets` come from `Segments`, which has checked them; a check here would wait for the
// device.
inline at::Tensor flash_attention(const at::Tensor& qkv, const at::Tensor& device_offsets,
                                  int64_t longest, double p) {
  auto out = std::get<0>(at::_flash_attention_forward(
      qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), device_offsets, device_offsets, longest,
      longest, p, false, false));
  return out.reshape({qkv.size(0), qkv.size(2) * qkv.size(3)});
}

// Any kind on any device: documents are padded to [documents, longest] and masked. An empty
// document attends to one row, whose result is not used, so that no NaN arises. On `device_offsets`
// see above.
inline at::Tensor padded_attention(const at::Tensor& qkv, const at::Tensor& device_offsets,
                                   int64_t longest, double p) {
  int64_t tokens = qkv.size(0), heads = qkv.size(2), width = qkv.size(3),
          documents = device_offsets.numel() - 1;
  if (tokens == 0) return qkv.reshape({0, 3, heads * width}).select(1, 0);
  at::Tensor offsets = device_offsets.to(at::kLong),
             starts = offsets.narrow(0, 0, documents).unsqueeze(1);
  at::Tensor lengths = offsets.narrow(0, 1, documents).unsqueeze(1) - starts,
             position = at::arange(longest, offsets.options()).unsqueeze(0);
  at::Tensor rows = (starts + position).clamp_max(tokens - 1).flatten();
  at::Tensor mask = position.lt(lengths.clamp_min(1)).view({documents, 1, 1, longest});
  at::Tensor padded = qkv.index_select(0, rows)
                          .view({documents, longest, 3, heads, width})
                          .permute({2, 0, 3, 1, 4});
  at::Tensor out = at::scaled_dot_product_attention(padded.select(0, 0), padded.select(0, 1),
                                                    padded.select(0, 2), mask, p);
  at::Tensor valid = position.lt(lengths).flatten().nonzero().squeeze(1);
  return out.transpose(1, 2).reshape({documents * longest, heads * width}).index_select(0, valid);
}

}  // namespace docre
