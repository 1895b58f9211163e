// Attention of entities, document by document, without padding. CPU only.
//
// Attention is computed again, for the rows of mentions alone, from the queries and keys that the
// layer has anyway. A task uses one thread and its own buffers, so its bits depend on the document
// alone. The result is one flat list of numbers, with a block [entities, heads, tokens] for each
// document. Tables count blocks in cells (entities · tokens), which do not depend on the number of
// heads.
#pragma once
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>

#include "attention.hpp"

namespace docre {

constexpr float kRowFloor = static_cast<float>(kRowEpsilon);

struct RowsCall {
  AttentionShape shape;  // of the stream of windows
  ScoreTerms terms;
  Table<AttentionDocument> documents;
  Table<AttentionRow> rows;
  const float* weights;  // of the rows
  Table<AttentionWindow> windows;
  Table<AttentionSlice> slices;
};

// How many numbers the result has. Refuses tables that name something that does not exist, and
// documents or windows that overlap, because tasks write side by side.
inline int64_t checked_size(const RowsCall& call) {
  const char* who = "entity attention";
  int64_t rows = 0, windows = 0, slices = 0, cells = 0, tokens = 0;
  for (int64_t i = 0; i < call.documents.count; i++) {
    const AttentionDocument& document = call.documents[i];
    TORCH_CHECK(add_cells(document, cells), who, ": the cells of document ", i, ", ",
                call.documents.numbers(i), ", do not follow those of the documents before");
    TORCH_CHECK(document.first_row == rows && within(rows, document.rows, call.rows.count), who,
                ": the rows of document ", i, ", ", call.documents.numbers(i),
                ", do not follow those of the documents before, or are not in the table of ",
                call.rows.count, " rows");
    TORCH_CHECK(
        document.first_window == windows && within(windows, document.windows, call.windows.count),
        who, ": the windows of document ", i, ", ", call.documents.numbers(i),
        ", do not follow those of the documents before, or are not in the table of ",
        call.windows.count, " windows");
    TORCH_CHECK(document.rows == 0 ||
                    all_below(&call.rows[rows].entity, document.rows, 1, document.entities),
                who, ": a row of document ", i, " belongs to an entity outside of its ",
                document.entities);
    rows += document.rows;
    for (; windows < document.first_window + document.windows; windows++) {
      const AttentionWindow& window = call.windows[windows];
      TORCH_CHECK(window.start >= tokens &&
                      within(window.start, window.length, call.shape.tokens) &&
                      within(window.skip, window.count, window.length) &&
                      within(window.place, window.count, document.tokens),
                  who, ": window ", windows, ", ", call.windows.numbers(windows),
                  ", begins before the end of the last one, or leaves the stream of ",
                  call.shape.tokens, " tokens or its document of ", document.tokens);
      TORCH_CHECK(window.first_slice == slices && within(slices, window.slices, call.slices.count),
                  who, ": the slices of window ", windows, ", ", call.windows.numbers(windows),
                  ", do not follow those of the windows before, or are not in the table of ",
                  call.slices.count, " slices");
      TORCH_CHECK(window.slices == 0 ||
                      (all_below(&call.slices[slices].token, window.slices, 2, window.length) &&
                       all_below(&call.slices[slices].row, window.slices, 2, document.rows)),
                  who, ": a slice of window ", windows, " lies outside of its ", window.length,
                  " tokens or of the ", document.rows, " rows of document ", i);
      slices += window.slices;
      tokens = window.start + window.length;
    }
  }
  int64_t numbers;
  TORCH_CHECK(!__builtin_mul_overflow(cells, call.shape.heads, &numbers), who, ": ", cells,
              " cells of ", call.shape.heads, " heads are too many");
  return numbers;
}

// One head of one window: the queries of its slices, the keys of all its tokens, and the
// probabilities of the rows of its slices.
template <typename T>
struct WindowRows {
  const RowsCall& call;
  const AttentionWindow& window;
  const T* qkv;
  int64_t head, d, wide, model, stride;
  float *q, *k, *turned, *p, *inverse, *log_sum;
  std::vector<int64_t> keys;
  std::optional<HeadTerms> terms;

  WindowRows(const RowsCall& call_, const AttentionWindow& window_, const T* qkv_, int64_t head_,
             Scratch& scratch)
      : call(call_),
        window(window_),
        qkv(qkv_),
        head(head_),
        d(call.shape.width),
        wide(padded(d)),
        model(call.shape.heads * d),
        stride(spread(window.length)) {
    q = scratch.take(window.slices * wide);
    k = scratch.take(window.length * wide);
    turned = scratch.take(d * stride);
    p = scratch.take(window.slices * stride);
    inverse = scratch.take(window.slices);
    log_sum = scratch.take(window.slices);
    const T* first = qkv + window.start * call.shape.row_stride() + head * d;
    pack(first + model, call.shape.row_stride(), k, wide, window.length, d, 1);
    call.terms.rotate(k, wide, window.length, d);
    transpose(k, wide, window.length, d, turned, stride);
    for (int64_t i = 0; i < window.slices; i++) {
      int64_t token = slice(i).token;
      pack(first + token * call.shape.row_stride(), call.shape.row_stride(), q + i * wide, wide, 1,
           d, call.terms.scale);
      call.terms.turn(q + i * wide, wide, {token, 1}, d, 1);
      if (call.shape.keys) keys.push_back(call.shape.keys[window.start + token]);
    }
    terms.emplace(call.terms, HeadShape{head, call.shape.heads, window.length, d}, k, window.slices,
                  scratch);
  }
  static int64_t scratch_size(const RowsCall& call, const AttentionWindow& window) {
    return (window.slices + window.length) * padded(call.shape.width) +
           (window.slices + call.shape.width) * (spread(window.length) + 2) + 64 +
           HeadTerms::floats(call.terms, window.length, call.shape.width, window.slices);
  }
  const AttentionSlice& slice(int64_t i) const { return call.slices[window.first_slice + i]; }
  ScoreBlock block() const {
    return score_block(call.shape, head, window.slices, {0, window.length},
                       keys.empty() ? nullptr : keys.data());
  }
  // The position of the token of slice i.
  auto places() const {
    return [this](int64_t i) { return slice(i).token; };
  }
  bool hides() const { return call.terms.window >= 0; }
  void scores() {
    multiply_block(q, wide, 1, turned, stride, p, stride, window.slices, window.length, d, false);
    terms->add_anywhere(q, window.slices, places(), p, stride);
  }
  void probabilities() {
    scores();
    (hides() ? softmax_seen_rows : softmax_rows)(p, inverse, log_sum, block());
    for (int64_t i = 0; i < window.slices; i++)
      scale_row(p + i * stride, inverse[i], window.length);
  }
};

// The rows [rows, tokens] of one document and head, put together from its windows. `mass` [rows] is
// what each row was divided by.
template <typename T>
void document_rows(const RowsCall& call, const AttentionDocument& document, const T* qkv,
                   int64_t head, float* rows, float* mass) {
  std::memset(rows, 0, document.rows * document.tokens * sizeof(float));
  for (int64_t w = document.first_window; w < document.first_window + document.windows; w++) {
    const AttentionWindow& window = call.windows[w];
    if (window.slices == 0) continue;
    Scratch scratch(WindowRows<T>::scratch_size(call, window));
    WindowRows<T> own(call, window, qkv, head, scratch);
    own.probabilities();
    for (int64_t i = 0; i < window.slices; i++)
      add_scaled(own.p + i * own.stride + window.skip, 1,
                 rows + own.slice(i).row * document.tokens + window.place, window.count);
  }
  for (int64_t r = 0; r < document.rows; r++) {
    float* row = rows + r * document.tokens;
    mass[r] = document.renormalise ? sum_row(row, document.tokens) + kRowFloor : 1.0f;
    if (document.renormalise) scale_row(row, 1.0f / mass[r], document.tokens);
  }
}

inline int64_t cost_of(const AttentionDocument& document) {
  return document.rows * document.tokens;
}

template <typename T>
void entity_rows_forward(const RowsCall& call, const T* qkv, float* out) {
  int64_t heads = call.shape.heads;
  for_each_head(
      call.documents.count, heads, 0, [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i, int64_t head, int64_t) {
        const AttentionDocument& document = call.documents[i];
        std::vector<float> rows(document.rows * document.tokens), mass(document.rows);
        document_rows(call, document, qkv, head, rows.data(), mass.data());
        for (int64_t r = 0; r < document.rows; r++) {
          int64_t entity = call.rows[document.first_row + r].entity;
          add_scaled(rows.data() + r * document.tokens, call.weights[document.first_row + r],
                     out + document.first_cell * heads + (entity * heads + head) * document.tokens,
                     document.tokens);
        }
      });
}

// The gradients of the queries and keys of one window. `grads` are those of the document's rows,
// before division by their sums.
template <typename T>
void window_backward(const RowsCall& call, const AttentionDocument& document,
                     const AttentionWindow& window, const T* qkv, int64_t head, const float* grads,
                     T* grad_qkv, const TableGrads& table_grads, int64_t group) {
  int64_t d = call.shape.width, wide = padded(d), stride = spread(window.length);
  Scratch scratch(WindowRows<T>::scratch_size(call, window) + window.slices * (stride + wide + 1) +
                  2 * window.length * wide + 64 +
                  HeadTerms::floats_backward(call.terms, window.length, d, window.slices));
  WindowRows<T> own(call, window, qkv, head, scratch);
  float *ds = scratch.take(window.slices * stride), *delta = scratch.take(window.slices),
        *slice_grad = scratch.take(window.slices * wide);
  float *dq = scratch.take(window.length * wide), *dk = scratch.take(window.length * wide);
  std::memset(ds, 0, window.slices * stride * sizeof(float));
  std::memset(dq, 0, window.length * wide * sizeof(float));
  own.probabilities();
  for (int64_t i = 0; i < window.slices; i++) {
    std::memcpy(ds + i * stride + window.skip,
                grads + own.slice(i).row * document.tokens + window.place,
                window.count * sizeof(float));
    delta[i] = dot_row(own.p + i * stride, ds + i * stride, window.length);
  }
  own.scores();
  for (int64_t i = 0; i < window.slices; i++)
    std::fill(own.p + i * stride + window.length, own.p + (i + 1) * stride, -1e30f);
  (own.hides() ? softmax_seen_rows_backward : softmax_rows_backward)(own.p, ds, own.log_sum, delta,
                                                                     own.block());
  multiply_block(ds, stride, 1, own.k, wide, slice_grad, wide, window.slices, d, window.length,
                 false);
  multiply_block(ds, 1, stride, own.q, wide, dk, wide, window.length, d, window.slices, false);
  own.terms->start_backward(scratch);
  own.terms->add_gradients_anywhere(own.q, window.slices, own.places(), ds, stride, slice_grad);
  own.terms->finish_backward(own.k, dk, table_grads, group);
  for (int64_t i = 0; i < window.slices; i++)
    add_scaled(slice_grad + i * wide, 1, dq + own.slice(i).token * wide, d);
  call.terms.rotate_back(dq, wide, {0, window.length}, d);
  call.terms.rotate_back(dk, wide, {0, window.length}, d);
  T* first = grad_qkv + window.start * call.shape.row_stride() + head * d;
  unpack(dq, wide, first, call.shape.row_stride(), window.length, d, nullptr, call.terms.scale);
  unpack(dk, wide, first + own.model, call.shape.row_stride(), window.length, d, nullptr, 1);
}

// `grad_qkv` starts with zeros. The values get no gradient.
template <typename T>
void entity_rows_backward(const RowsCall& call, const T* qkv, const float* grad_out, T* grad_qkv,
                          const TableGrads& table_grads) {
  int64_t heads = call.shape.heads;
  for_each_head(
      call.documents.count, heads, table_grads.groups,
      [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i, int64_t head, int64_t group) {
        const AttentionDocument& document = call.documents[i];
        int64_t tokens = document.tokens;
        std::vector<float> rows(document.renormalise ? document.rows * tokens : 0),
            mass(document.rows), grads(document.rows * tokens);
        if (document.renormalise)
          document_rows(call, document, qkv, head, rows.data(), mass.data());
        for (int64_t r = 0; r < document.rows; r++) {
          float* grad = grads.data() + r * tokens;
          add_scaled(grad_out + document.first_cell * heads +
                         (call.rows[document.first_row + r].entity * heads + head) * tokens,
                     call.weights[document.first_row + r], grad, tokens);
          if (!document.renormalise) continue;
          float mean = dot_row(grad, rows.data() + r * tokens, tokens);
          for (int64_t l = 0; l < tokens; l++) grad[l] = (grad[l] - mean) / mass[r];
        }
        for (int64_t w = document.first_window; w < document.first_window + document.windows; w++)
          if (call.windows[w].slices > 0)
            window_backward(call, document, call.windows[w], qkv, head, grads.data(), grad_qkv,
                            table_grads, group);
      });
}

// The longest window that has slices.
inline int64_t longest_of(const RowsCall& call) {
  int64_t longest = 0;
  for (int64_t i = 0; i < call.windows.count; i++)
    longest = std::max(longest, call.windows[i].length);
  return longest;
}

// The tensors of a plan: documents, rows, weights, windows and slices.
using Plan = std::array<at::Tensor, 5>;

struct EntityRows : torch::autograd::Function<EntityRows> {
  static RowsCall call_of(const at::Tensor& qkv, const at::Tensor& offsets,
                          const std::optional<at::Tensor>& keys, int64_t salt, double p,
                          const Plan& plan, const TermTensors& tensors, int64_t window,
                          double scale) {
    const char* who = "entity attention";
    const at::Tensor& weights = plan[2];
    TORCH_CHECK(weights.device().is_cpu() && weights.scalar_type() == at::kFloat &&
                    weights.is_contiguous() && weights.dim() == 1 &&
                    weights.numel() == plan[1].size(0),
                who, ": one 32-bit weight a row is needed on the host, not ", weights.sizes(),
                " of ", weights.scalar_type(), " for rows of ", plan[1].sizes());
    RowsCall call{shape_of(who, qkv, offsets, keys, salt, p),
                  {},
                  {who, "documents", plan[0]},
                  {who, "rows", plan[1]},
                  weights.const_data_ptr<float>(),
                  {who, "windows", plan[3]},
                  {who, "slices", plan[4]}};
    call.terms = tensors.terms(who, call.shape.heads, call.shape.width, longest_of(call));
    call.terms.window = window;
    call.terms.scale = static_cast<float>(scale);
    return call;
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& qkv,
                            const at::Tensor& offsets, const std::optional<at::Tensor>& keys,
                            int64_t salt, double p, const at::Tensor& documents,
                            const at::Tensor& rows, const at::Tensor& weights,
                            const at::Tensor& windows, const at::Tensor& slices,
                            const std::optional<at::Tensor>& index,
                            const std::optional<at::Tensor>& key_table,
                            const std::optional<at::Tensor>& query_table,
                            const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& rotary, int64_t window, double scale) {
    TermTensors tensors{index, key_table, query_table, bias, rotary};
    RowsCall call = call_of(qkv, offsets, keys, salt, p,
                            {documents, rows, weights, windows, slices}, tensors, window, scale);
    at::Tensor out = at::zeros({checked_size(call)}, qkv.options().dtype(at::kFloat));
    for_kind("entity attention", qkv, [&](auto zero) {
      using T = decltype(zero);
      entity_rows_forward(call, qkv.const_data_ptr<T>(), out.mutable_data_ptr<float>());
    });
    ctx->save_for_backward(tensors.saved(
        {qkv, offsets, keys ? *keys : at::Tensor(), documents, rows, weights, windows, slices}));
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    ctx->saved_data["window"] = window;
    ctx->saved_data["scale"] = scale;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor& qkv = saved[0];
    auto keys = saved[2].defined() ? std::optional<at::Tensor>(saved[2]) : std::nullopt;
    TermTensors tensors = TermTensors::restored(saved, 8);
    RowsCall call =
        call_of(qkv, saved[1], keys, ctx->saved_data["salt"].toInt(),
                ctx->saved_data["p"].toDouble(), {saved[3], saved[4], saved[5], saved[6], saved[7]},
                tensors, ctx->saved_data["window"].toInt(), ctx->saved_data["scale"].toDouble());
    GroupedGrads table_grads(tensors, call.documents.count);
    at::Tensor grad_out = grads[0].to(at::kFloat).contiguous(), grad = at::zeros_like(qkv);
    for_kind("entity attention", qkv, [&](auto zero) {
      using T = decltype(zero);
      entity_rows_backward(call, qkv.const_data_ptr<T>(), grad_out.const_data_ptr<float>(),
                           grad.mutable_data_ptr<T>(), table_grads.view);
    });
    torch::autograd::variable_list all(17);
    all[0] = grad;
    table_grads.sums(all, 11);
    return all;
  }
};

}  // namespace docre
