// Self-attention inside each document of a packed token stream, without padding.
//
// On the CPU, each (document, head) is one task. Blocks of score rows stay in the cache, and
// backward recomputes the probabilities from the log-sum-exp of each row. A task copies its
// operands into its own aligned buffers and multiplies them with the tiles of panel.hpp, so its
// bits depend on the document alone.
//
// On CUDA, 16-bit kinds use flash attention with cumulative lengths. Other kinds use padding
// (kernels/padded.rs).
#pragma once
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cmath>

#include "checks.hpp"
#include "dropout.hpp"
#include "head_terms.hpp"
#include "operands.hpp"
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
  int64_t row_stride() const { return 3 * heads * width; }
};

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
      Words mask;
      keep_mask(key, static_cast<uint32_t>(block.first + j), block.threshold, mask);
      load(row + j, x);
      store(row + j, (Floats)((Words)(x * block.keep_scale) & mask));
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

// Runs task(document, head, group) for all of them; for_each_head says in which order.
template <typename Task>
void for_each_task(const AttentionShape& shape, int64_t groups, const Task& task) {
  auto length = [&](int64_t i) { return shape.offsets[i + 1] - shape.offsets[i]; };
  for_each_head(shape.documents, shape.heads, groups, length, task);
}

// A block of rows of one head. `keys` are those of its rows, or null.
inline ScoreBlock score_block(const AttentionShape& shape, int64_t head, int64_t rows,
                              const Columns& columns, const int64_t* keys) {
  uint64_t salt = shape.salt * 0x2545f4914f6cdd1dull + static_cast<uint64_t>(head) + 1;
  return {rows, columns.first, columns.count,   spread(columns.count),
          keys, salt,          shape.threshold, shape.keep_scale};
}
inline ScoreBlock block_at(const AttentionShape& shape, const ScoreTerms& terms, int64_t start,
                           int64_t length, int64_t row, int64_t head) {
  int64_t rows = std::min(kBlockRows, length - row);
  return score_block(shape, head, rows, terms.columns(row, rows, length),
                     shape.keys ? shape.keys + start + row : nullptr);
}

// qkv: [T, 3, heads, width]; out: [T, heads · width]; log_sum: [heads, T].
template <typename Operands, typename T>
void attention_forward(const AttentionShape& shape, const ScoreTerms& terms, const T* qkv, T* out,
                       float* log_sum) {
  for_each_task(shape, 0, [&](int64_t document, int64_t head, int64_t) {
    int64_t start = shape.offsets[document], length = shape.offsets[document + 1] - start,
            d = shape.width, wide = padded(d);
    int64_t model = shape.heads * d, stride = spread(length);
    Scratch scratch(3 * length * wide + Operands::left_floats(length, d) +
                    Operands::right_floats(length, d) + Operands::turned_floats(length, d) +
                    Operands::weight_floats(kBlockRows, length) + kBlockRows * (stride + wide + 1) +
                    HeadTerms::floats(terms, length, d, kBlockRows));
    float *q = scratch.take(length * wide), *k = scratch.take(length * wide),
          *v = scratch.take(length * wide);
    float *s = scratch.take(kBlockRows * stride), *o = scratch.take(kBlockRows * wide),
          *inverse = scratch.take(kBlockRows);
    const T* first = qkv + start * shape.row_stride() + head * d;
    pack(first, shape.row_stride(), q, wide, length, d, terms.scale);
    pack(first + model, shape.row_stride(), k, wide, length, d, 1);
    pack(first + 2 * model, shape.row_stride(), v, wide, length, d, 1);
    terms.rotate(q, wide, length, d);
    terms.rotate(k, wide, length, d);
    auto queries = Operands::left(q, wide, length, d, scratch);
    auto keys = Operands::turned(k, wide, length, d, scratch);
    auto values = Operands::right(v, wide, length, d, scratch);
    typename Operands::Weights weights(kBlockRows, length, scratch);
    HeadTerms own(terms, {head, shape.heads, length, d}, k, kBlockRows, scratch);
    for (int64_t row = 0; row < length; row += kBlockRows) {
      ScoreBlock block = block_at(shape, terms, start, length, row, head);
      Operands::multiply(queries.from(row), keys.from_column(block.first), s, block.stride,
                         block.rows, block.length, d);
      own.add(q + row * wide, {row, block.rows}, {block.first, block.length}, s, block.stride);
      (terms.window < 0 ? softmax_rows : softmax_seen_rows)(
          s, inverse, log_sum + head * shape.tokens + start + row, block);
      weights.times(s, block.stride, block.rows, block.length, values.from_row(block.first), o,
                    wide, d);
      unpack(o, wide, out + (start + row) * model + head * d, model, block.rows, d, inverse, 1);
    }
  });
}

// The gradient of attention with respect to qkv and the tables of the terms. Every element of
// `grad_qkv` is written once.
template <typename Operands, typename T>
void attention_backward(const AttentionShape& shape, const ScoreTerms& terms, const T* qkv,
                        const T* out, const float* log_sum, const T* grad_out, T* grad_qkv,
                        const TableGrads& table_grads) {
  for_each_task(shape, table_grads.groups, [&](int64_t document, int64_t head, int64_t group) {
    int64_t start = shape.offsets[document], length = shape.offsets[document + 1] - start,
            d = shape.width, wide = padded(d);
    int64_t model = shape.heads * d, stride = spread(length);
    Scratch scratch(6 * length * wide + 2 * Operands::left_floats(length, d) +
                    3 * Operands::right_floats(length, d) + 2 * Operands::turned_floats(length, d) +
                    Operands::weight_floats(kBlockRows, length) +
                    kBlockRows * (2 * stride + 2 * wide + 1) +
                    HeadTerms::floats_backward(terms, length, d, kBlockRows));
    float *q = scratch.take(length * wide), *k = scratch.take(length * wide),
          *v = scratch.take(length * wide), *g = scratch.take(length * wide);
    float *dk = scratch.take(length * wide), *dv = scratch.take(length * wide),
          *dq = scratch.take(kBlockRows * wide);
    float *s = scratch.take(kBlockRows * stride), *ds = scratch.take(kBlockRows * stride);
    float *o = scratch.take(kBlockRows * wide), *delta = scratch.take(kBlockRows);
    int64_t place = start * shape.row_stride() + head * d;
    pack(qkv + place, shape.row_stride(), q, wide, length, d, terms.scale);
    pack(qkv + place + model, shape.row_stride(), k, wide, length, d, 1);
    pack(qkv + place + 2 * model, shape.row_stride(), v, wide, length, d, 1);
    pack(grad_out + start * model + head * d, model, g, wide, length, d, 1);
    terms.rotate(q, wide, length, d);
    terms.rotate(k, wide, length, d);
    auto queries = Operands::left(q, wide, length, d, scratch);
    auto keys = Operands::turned(k, wide, length, d, scratch);
    auto values = Operands::turned(v, wide, length, d, scratch);
    auto grads = Operands::left(g, wide, length, d, scratch);
    auto query_rows = Operands::right(q, wide, length, d, scratch),
         key_rows = Operands::right(k, wide, length, d, scratch),
         grad_rows = Operands::right(g, wide, length, d, scratch);
    typename Operands::Weights weights(kBlockRows, length, scratch);
    HeadTerms own(terms, {head, shape.heads, length, d}, k, kBlockRows, scratch);
    own.start_backward(scratch);
    bool windowed = terms.window >= 0;
    if (windowed) {
      std::memset(dk, 0, length * wide * sizeof(float));
      std::memset(dv, 0, length * wide * sizeof(float));
    }
    for (int64_t row = 0; row < length; row += kBlockRows) {
      ScoreBlock block = block_at(shape, terms, start, length, row, head);
      Rows rows{row, block.rows};
      Columns columns{block.first, block.length};
      int64_t out_place = (start + row) * model + head * d, key = block.first * wide;
      float* q_rows = q + row * wide;
      pack(out + out_place, model, o, wide, block.rows, d, 1);
      dot_rows(g + row * wide, o, wide, delta, block.rows, d);
      Operands::multiply(queries.from(row), keys.from_column(block.first), s, block.stride,
                         block.rows, block.length, d);
      own.add(q_rows, rows, columns, s, block.stride);
      Operands::multiply(grads.from(row), values.from_column(block.first), ds, block.stride,
                         block.rows, block.length, d);
      (windowed ? softmax_seen_rows_backward : softmax_rows_backward)(
          s, ds, log_sum + head * shape.tokens + start + row, delta, block);
      bool add = windowed || row > 0;
      weights.turned_times(s, block.stride, block.rows, block.length, grad_rows.from_row(row),
                           dv + key, wide, d, add);
      weights.turned_times(ds, block.stride, block.rows, block.length, query_rows.from_row(row),
                           dk + key, wide, d, add);
      weights.times(ds, block.stride, block.rows, block.length, key_rows.from_row(block.first), dq,
                    wide, d);
      own.add_gradients(q_rows, rows, columns, ds, block.stride, dq);
      terms.rotate_back(dq, wide, rows, d);
      unpack(dq, wide, grad_qkv + place + row * shape.row_stride(), shape.row_stride(), block.rows,
             d, nullptr, terms.scale);
    }
    own.finish_backward(k, dk, table_grads, group);
    terms.rotate_back(dk, wide, {0, length}, d);
    unpack(dk, wide, grad_qkv + place + model, shape.row_stride(), length, d, nullptr, 1);
    unpack(dv, wide, grad_qkv + place + 2 * model, shape.row_stride(), length, d, nullptr, 1);
  });
}

// Calls with(operands) for the operands of numbers of type T on this machine.
template <typename T, typename With>
void with_operands(const With& with) {
  if (std::is_same_v<T, c10::BFloat16> && multiplies_pairs())
    with(PairOperands{});
  else
    with(FloatOperands{});
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

// The longest document.
inline int64_t longest_of(const AttentionShape& shape) {
  int64_t longest = 0;
  for (int64_t i = 0; i < shape.documents; i++)
    longest = std::max(longest, shape.offsets[i + 1] - shape.offsets[i]);
  return longest;
}

struct VarlenAttention : torch::autograd::Function<VarlenAttention> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& qkv,
                            const at::Tensor& offsets, const std::optional<at::Tensor>& keys,
                            int64_t salt, double p, const std::optional<at::Tensor>& index,
                            const std::optional<at::Tensor>& key_table,
                            const std::optional<at::Tensor>& query_table,
                            const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& rotary, int64_t window, double scale) {
    const char* who = "attention";
    AttentionShape shape = shape_of(who, qkv, offsets, keys, salt, p);
    TermTensors tensors{index, key_table, query_table, bias, rotary};
    ScoreTerms terms = tensors.terms(who, shape.heads, shape.width, longest_of(shape));
    terms.window = window;
    terms.scale = static_cast<float>(scale);
    at::Tensor out = at::empty({shape.tokens, shape.heads * shape.width}, qkv.options());
    at::Tensor log_sum = at::empty({shape.heads, shape.tokens}, qkv.options().dtype(at::kFloat));
    for_kind(who, qkv, [&](auto zero) {
      using T = decltype(zero);
      with_operands<T>([&](auto operands) {
        attention_forward<decltype(operands)>(shape, terms, qkv.const_data_ptr<T>(),
                                              out.mutable_data_ptr<T>(),
                                              log_sum.mutable_data_ptr<float>());
      });
    });
    ctx->save_for_backward(
        tensors.saved({qkv, out, log_sum, offsets, keys ? *keys : at::Tensor()}));
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    ctx->saved_data["window"] = window;
    ctx->saved_data["scale"] = scale;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const char* who = "attention";
    auto saved = ctx->get_saved_variables();
    const at::Tensor &qkv = saved[0], &out = saved[1];
    auto keys = saved[4].defined() ? std::optional<at::Tensor>(saved[4]) : std::nullopt;
    AttentionShape shape = shape_of(who, qkv, saved[3], keys, ctx->saved_data["salt"].toInt(),
                                    ctx->saved_data["p"].toDouble());
    TermTensors tensors = TermTensors::restored(saved, 5);
    ScoreTerms terms = tensors.terms(who, shape.heads, shape.width, longest_of(shape));
    terms.window = ctx->saved_data["window"].toInt();
    terms.scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    GroupedGrads table_grads(tensors, shape.documents);
    at::Tensor grad_out = grads[0].contiguous(), grad = at::empty_like(qkv);
    for_kind(who, qkv, [&](auto zero) {
      using T = decltype(zero);
      with_operands<T>([&](auto operands) {
        attention_backward<decltype(operands)>(
            shape, terms, qkv.const_data_ptr<T>(), out.const_data_ptr<T>(),
            saved[2].const_data_ptr<float>(), grad_out.const_data_ptr<T>(),
            grad.mutable_data_ptr<T>(), table_grads.view);
      });
    });
    torch::autograd::variable_list all(12);
    all[0] = grad;
    table_grads.sums(all, 6);
    return all;
  }
};

// Flash attention over the packed stream, for 16-bit kinds on CUDA. Dropout is libtorch's own. A
// token sees `window` neighbours on each side, or all if that is negative. `device_offsets` come
// from `Segments`, which has checked them; a check here would wait for the device.
inline at::Tensor flash_attention(const at::Tensor& qkv, const at::Tensor& device_offsets,
                                  int64_t longest, double p, int64_t window, double scale) {
  auto side = window < 0 ? std::nullopt : std::optional<c10::SymInt>(window);
  // One operation in backward puts the three gradients together.
  auto parts = qkv.unbind(1);
  auto out = std::get<0>(at::_flash_attention_forward_symint(
      parts[0], parts[1], parts[2], device_offsets, device_offsets, longest, longest, p, false,
      false, scale, side, side));
  return out.reshape({qkv.size(0), qkv.size(2) * qkv.size(3)});
}

}  // namespace docre
