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
#include "softmax.hpp"
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

// Queries, keys and values of one head of a document, as the products need them.
template <typename Operands, typename T>
class HeadRows {
 public:
  // In 32 bits [length, padded(width)], where the operands or the terms read them; else null.
  float *q = nullptr, *k = nullptr;

  HeadRows(const AttentionShape& shape, const ScoreTerms& terms, const T* qkv, int64_t document,
           int64_t head, Scratch& scratch)
      : stride_(shape.row_stride()),
        model_(shape.heads * shape.width),
        length_(shape.offsets[document + 1] - shape.offsets[document]),
        width_(shape.width),
        scale_(terms.scale),
        first_(qkv + shape.offsets[document] * stride_ + head * shape.width),
        scratch_(scratch) {
    if (Operands::kTakesHalves && !terms.read_rows()) return;
    q = packed(first_, scale_);
    k = packed(first_ + model_, 1);
    terms.rotate(q, padded(width_), length_, width_);
    terms.rotate(k, padded(width_), length_, width_);
  }
  using Left = typename Operands::Left;
  using Right = typename Operands::Right;

  Left queries() const {
    if constexpr (Operands::kTakesHalves)
      if (!q) return Operands::left(first_, stride_, length_, width_, scale_, scratch_);
    return Operands::left(q, padded(width_), length_, width_, scratch_);
  }
  // The same as the right side.
  Right query_rows(const Left& queries) const {
    if constexpr (Operands::kTakesHalves)
      if (!q) return Operands::right(queries, length_, width_, scratch_);
    return Operands::right(q, padded(width_), length_, width_, scratch_);
  }
  Right keys() const { return right(1, k); }
  Right turned_keys() const { return turned(1, k); }
  Right values() const { return right(2, value_rows()); }
  Right turned_values() const { return turned(2, value_rows()); }

 private:
  float* packed(const T* rows, float factor) const {
    float* to = scratch_.take(length_ * padded(width_));
    pack(rows, stride_, to, padded(width_), length_, width_, factor);
    return to;
  }
  const float* value_rows() const {
    return Operands::kTakesHalves ? nullptr : packed(first_ + 2 * model_, 1);
  }
  // Rows in 32 bits, or those of `qkv` if there are none.
  Right right(int64_t part, const float* rows) const {
    if constexpr (Operands::kTakesHalves)
      if (!rows) return Operands::right(first_ + part * model_, stride_, length_, width_, scratch_);
    return Operands::right(rows, padded(width_), length_, width_, scratch_);
  }
  Right turned(int64_t part, const float* rows) const {
    if constexpr (Operands::kTakesHalves)
      if (!rows)
        return Operands::turned(first_ + part * model_, stride_, length_, width_, scratch_);
    return Operands::turned(rows, padded(width_), length_, width_, scratch_);
  }

  int64_t stride_, model_, length_, width_;
  float scale_;
  const T* first_;
  Scratch& scratch_;
};

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
    float *s = scratch.take(kBlockRows * stride), *o = scratch.take(kBlockRows * wide),
          *inverse = scratch.take(kBlockRows);
    HeadRows<Operands, T> rows(shape, terms, qkv, document, head, scratch);
    auto queries = rows.queries();
    auto keys = rows.turned_keys(), values = rows.values();
    typename Operands::Weights weights(kBlockRows, length, scratch);
    HeadTerms own(terms, {head, shape.heads, length, d}, rows.k, kBlockRows, scratch);
    for (int64_t row = 0; row < length; row += kBlockRows) {
      ScoreBlock block = block_at(shape, terms, start, length, row, head);
      Operands::multiply(queries.from(row), keys.from_column(block.first), s, block.stride,
                         block.rows, block.length, d);
      own.add(rows.q ? rows.q + row * wide : nullptr, {row, block.rows},
              {block.first, block.length}, s, block.stride);
      weights.soften(s, inverse, log_sum + head * shape.tokens + start + row, block,
                     terms.window >= 0);
      weights.softened_times(s, block, values.from_row(block.first), o, wide, d);
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
    float* g = scratch.take(length * wide);
    float *dk = scratch.take(length * wide), *dv = scratch.take(length * wide),
          *dq = scratch.take(kBlockRows * wide);
    float *s = scratch.take(kBlockRows * stride), *ds = scratch.take(kBlockRows * stride);
    float *o = scratch.take(kBlockRows * wide), *delta = scratch.take(kBlockRows);
    int64_t place = start * shape.row_stride() + head * d;
    pack(grad_out + start * model + head * d, model, g, wide, length, d, 1);
    HeadRows<Operands, T> rows_of(shape, terms, qkv, document, head, scratch);
    const float* k = rows_of.k;
    auto queries = rows_of.queries();
    auto keys = rows_of.turned_keys(), values = rows_of.turned_values();
    auto grads = Operands::left(g, wide, length, d, scratch);
    auto query_rows = rows_of.query_rows(queries), key_rows = rows_of.keys(),
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
      const float* q_rows = rows_of.q ? rows_of.q + row * wide : nullptr;
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
  if constexpr (std::is_same_v<T, c10::BFloat16>)
    if (multiplies_pairs()) return with(PairOperands{});
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
