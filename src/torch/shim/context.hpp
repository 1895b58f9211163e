// Attention of entities, and the context of a pair of them (ATLOP's localized context pooling),
// document by document without padding. CPU only. Attention is computed again for the rows of
// mentions alone, from the queries and keys that the layer has anyway; a task works with one thread
// on its own buffers, so that its bits depend on nothing but the document. Entities' attention is
// one flat list of numbers, a block [entities, heads, tokens] a document; plans count blocks in
// cells (entities · tokens), whatever the number of heads.
#pragma once
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "attention.hpp"

namespace docre {

constexpr float kTinyMass = 1e-10f;  // keeps the sum of a row without attention from being zero

// What one document asks for; rows of int64 tables made on the host (`torch::context` says what
// each column is).
struct DocumentPlan {
  int64_t entities, tokens, first_row, rows, first_window, windows, renormalise, block;
};
struct RowPlan {
  int64_t entity;
};
struct WindowPlan {
  int64_t start, length, skip, count, place, first_part, parts;
};
struct PartPlan {
  int64_t token, row;
};

template <typename Plan>
const Plan* plan_of(const at::Tensor& table) {
  constexpr int64_t columns = sizeof(Plan) / sizeof(int64_t);
  TORCH_CHECK(table.device().is_cpu() && table.scalar_type() == at::kLong &&
                  table.is_contiguous() && table.numel() % columns == 0,
              "entity attention: a table of ", columns, " int64 columns is needed");
  return reinterpret_cast<const Plan*>(table.const_data_ptr<int64_t>());
}

struct RowsCall {
  AttentionShape shape;  // of the stream of windows
  const DocumentPlan* documents;
  int64_t count;
  const RowPlan* rows;
  const float* weights;
  const WindowPlan* windows;
  const PartPlan* parts;
  int64_t numbers;
};

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

// One head of one window: queries of its parts, keys of all its tokens, probabilities of the parts'
// rows.
template <typename T>
struct WindowRows {
  const RowsCall& call;
  const WindowPlan& window;
  const T* qkv;
  int64_t head, d, wide, model, stride;
  float *q, *k, *turned, *p, *inverse, *log_sum;
  std::vector<int64_t> keys;

  WindowRows(const RowsCall& call_, const WindowPlan& window_, const T* qkv_, int64_t head_,
             Scratch& scratch)
      : call(call_),
        window(window_),
        qkv(qkv_),
        head(head_),
        d(call.shape.width),
        wide(padded(d)),
        model(call.shape.heads * d),
        stride(spread(window.length)) {
    q = scratch.take(window.parts * wide);
    k = scratch.take(window.length * wide);
    turned = scratch.take(d * stride);
    p = scratch.take(window.parts * stride);
    inverse = scratch.take(window.parts);
    log_sum = scratch.take(window.parts);
    const T* first = qkv + window.start * call.shape.row_stride() + head * d;
    pack(first + model, call.shape.row_stride(), k, wide, window.length, d, 1);
    transpose(k, wide, window.length, d, turned, stride);
    for (int64_t i = 0; i < window.parts; i++) {
      int64_t token = part(i).token;
      pack(first + token * call.shape.row_stride(), call.shape.row_stride(), q + i * wide, wide, 1,
           d, call.shape.scale());
      if (call.shape.keys) keys.push_back(call.shape.keys[window.start + token]);
    }
  }
  static int64_t scratch_size(const RowsCall& call, const WindowPlan& window) {
    return (window.parts + window.length) * padded(call.shape.width) +
           (window.parts + call.shape.width) * (spread(window.length) + 2) + 64;
  }
  const PartPlan& part(int64_t i) const { return call.parts[window.first_part + i]; }
  ScoreBlock block() const {
    return {window.parts,
            window.length,
            stride,
            keys.empty() ? nullptr : keys.data(),
            call.shape.salt * 0x2545f4914f6cdd1dull + static_cast<uint64_t>(head) + 1,
            call.shape.threshold,
            call.shape.keep_scale};
  }
  void scores() {
    multiply_block(q, wide, 1, turned, stride, p, stride, window.parts, window.length, d, false);
  }
  void probabilities() {
    scores();
    softmax_rows(p, inverse, log_sum, block());
    for (int64_t i = 0; i < window.parts; i++) scale_row(p + i * stride, inverse[i], window.length);
  }
};

// Rows [rows, tokens] of one document and head, windows put together; `mass` [rows] is what each
// was divided by.
template <typename T>
void document_rows(const RowsCall& call, const DocumentPlan& document, const T* qkv, int64_t head,
                   float* rows, float* mass) {
  std::memset(rows, 0, document.rows * document.tokens * sizeof(float));
  for (int64_t w = document.first_window; w < document.first_window + document.windows; w++) {
    const WindowPlan& window = call.windows[w];
    if (window.parts == 0) continue;
    Scratch scratch(WindowRows<T>::scratch_size(call, window));
    WindowRows<T> own(call, window, qkv, head, scratch);
    own.probabilities();
    for (int64_t i = 0; i < window.parts; i++)
      add_scaled(own.p + i * own.stride + window.skip, 1,
                 rows + own.part(i).row * document.tokens + window.place, window.count);
  }
  for (int64_t r = 0; r < document.rows; r++) {
    float* row = rows + r * document.tokens;
    mass[r] = document.renormalise ? sum_row(row, document.tokens) + kTinyMass : 1.0f;
    if (document.renormalise) scale_row(row, 1.0f / mass[r], document.tokens);
  }
}

inline int64_t cost_of(const DocumentPlan& document) { return document.rows * document.tokens; }

template <typename T>
void entity_rows_forward(const RowsCall& call, const T* qkv, float* out) {
  int64_t heads = call.shape.heads;
  for_each_by_size(
      call.count * heads, [&](int64_t i) { return cost_of(call.documents[i / heads]); },
      [&](int64_t i) {
        const DocumentPlan& document = call.documents[i / heads];
        int64_t head = i % heads;
        std::vector<float> rows(document.rows * document.tokens), mass(document.rows);
        document_rows(call, document, qkv, head, rows.data(), mass.data());
        for (int64_t r = 0; r < document.rows; r++) {
          int64_t entity = call.rows[document.first_row + r].entity;
          add_scaled(rows.data() + r * document.tokens, call.weights[document.first_row + r],
                     out + document.block * heads + (entity * heads + head) * document.tokens,
                     document.tokens);
        }
      });
}

// Gradient of one window's queries and keys; `grads`: gradients of the document's rows before
// windows were put together.
template <typename T>
void window_backward(const RowsCall& call, const DocumentPlan& document, const WindowPlan& window,
                     const T* qkv, int64_t head, const float* grads, T* grad_qkv) {
  int64_t d = call.shape.width, wide = padded(d), stride = spread(window.length);
  Scratch scratch(WindowRows<T>::scratch_size(call, window) + window.parts * (stride + wide + 1) +
                  2 * window.length * wide + 64);
  WindowRows<T> own(call, window, qkv, head, scratch);
  float *ds = scratch.take(window.parts * stride), *delta = scratch.take(window.parts),
        *part_grad = scratch.take(window.parts * wide);
  float *dq = scratch.take(window.length * wide), *dk = scratch.take(window.length * wide);
  std::memset(ds, 0, window.parts * stride * sizeof(float));
  std::memset(dq, 0, window.length * wide * sizeof(float));
  own.probabilities();
  for (int64_t i = 0; i < window.parts; i++) {
    std::memcpy(ds + i * stride + window.skip,
                grads + own.part(i).row * document.tokens + window.place,
                window.count * sizeof(float));
    delta[i] = dot_row(own.p + i * stride, ds + i * stride, window.length);
  }
  own.scores();
  for (int64_t i = 0; i < window.parts; i++)
    std::fill(own.p + i * stride + window.length, own.p + (i + 1) * stride, -1e30f);
  softmax_rows_backward(own.p, ds, own.log_sum, delta, own.block());
  multiply_block(ds, stride, 1, own.k, wide, part_grad, wide, window.parts, d, window.length,
                 false);
  multiply_block(ds, 1, stride, own.q, wide, dk, wide, window.length, d, window.parts, false);
  for (int64_t i = 0; i < window.parts; i++)
    add_scaled(part_grad + i * wide, 1, dq + own.part(i).token * wide, d);
  T* first = grad_qkv + window.start * call.shape.row_stride() + head * d;
  unpack(dq, wide, first, call.shape.row_stride(), window.length, d, nullptr, call.shape.scale());
  unpack(dk, wide, first + own.model, call.shape.row_stride(), window.length, d, nullptr, 1);
}

// `grad_qkv` starts at zero; the values get no gradient.
template <typename T>
void entity_rows_backward(const RowsCall& call, const T* qkv, const float* grad_out, T* grad_qkv) {
  int64_t heads = call.shape.heads;
  for_each_by_size(
      call.count * heads, [&](int64_t i) { return cost_of(call.documents[i / heads]); },
      [&](int64_t i) {
        const DocumentPlan& document = call.documents[i / heads];
        int64_t head = i % heads, tokens = document.tokens;
        std::vector<float> rows(document.renormalise ? document.rows * tokens : 0),
            mass(document.rows), grads(document.rows * tokens);
        if (document.renormalise)
          document_rows(call, document, qkv, head, rows.data(), mass.data());
        for (int64_t r = 0; r < document.rows; r++) {
          float* grad = grads.data() + r * tokens;
          add_scaled(grad_out + document.block * heads +
                         (call.rows[document.first_row + r].entity * heads + head) * tokens,
                     call.weights[document.first_row + r], grad, tokens);
          if (!document.renormalise) continue;
          float mean = dot_row(grad, rows.data() + r * tokens, tokens);
          for (int64_t l = 0; l < tokens; l++) grad[l] = (grad[l] - mean) / mass[r];
        }
        for (int64_t w = document.first_window; w < document.first_window + document.windows; w++)
          if (call.windows[w].parts > 0)
            window_backward(call, document, call.windows[w], qkv, head, grads.data(), grad_qkv);
      });
}

struct EntityRows : torch::autograd::Function<EntityRows> {
  static RowsCall call_of(const at::Tensor& qkv, const at::Tensor& offsets,
                          const std::optional<at::Tensor>& keys, int64_t salt, double p,
                          const std::vector<at::Tensor>& plan, int64_t numbers) {
    TORCH_CHECK(plan[2].scalar_type() == at::kFloat && plan[2].numel() == plan[1].numel(),
                "entity attention: one 32-bit weight a row is needed");
    return {shape_of(qkv, offsets, keys, salt, p),
            plan_of<DocumentPlan>(plan[0]),
            plan[0].numel() / 8,
            plan_of<RowPlan>(plan[1]),
            plan[2].const_data_ptr<float>(),
            plan_of<WindowPlan>(plan[3]),
            plan_of<PartPlan>(plan[4]),
            numbers};
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& qkv,
                            const at::Tensor& offsets, const std::optional<at::Tensor>& keys,
                            int64_t salt, double p, const at::Tensor& documents,
                            const at::Tensor& rows, const at::Tensor& weights,
                            const at::Tensor& windows, const at::Tensor& parts, int64_t numbers) {
    RowsCall call =
        call_of(qkv, offsets, keys, salt, p, {documents, rows, weights, windows, parts}, numbers);
    at::Tensor out = at::zeros({numbers}, qkv.options().dtype(at::kFloat));
    if (qkv.scalar_type() == at::kFloat)
      entity_rows_forward(call, qkv.const_data_ptr<float>(), out.mutable_data_ptr<float>());
    else if (qkv.scalar_type() == at::kBFloat16)
      entity_rows_forward(call, qkv.const_data_ptr<at::BFloat16>(), out.mutable_data_ptr<float>());
    else
      TORCH_CHECK(false, "entity attention: kind ", qkv.scalar_type(),
                  " is not supported on the CPU");
    ctx->save_for_backward(
        {qkv, offsets, keys ? *keys : at::Tensor(), documents, rows, weights, windows, parts});
    ctx->saved_data["salt"] = salt;
    ctx->saved_data["p"] = p;
    ctx->saved_data["numbers"] = numbers;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor& qkv = saved[0];
    auto keys = saved[2].defined() ? std::optional<at::Tensor>(saved[2]) : std::nullopt;
    RowsCall call = call_of(
        qkv, saved[1], keys, ctx->saved_data["salt"].toInt(), ctx->saved_data["p"].toDouble(),
        {saved[3], saved[4], saved[5], saved[6], saved[7]}, ctx->saved_data["numbers"].toInt());
    at::Tensor grad_out = grads[0].to(at::kFloat).contiguous(), grad = at::zeros_like(qkv);
    if (qkv.scalar_type() == at::kFloat)
      entity_rows_backward(call, qkv.const_data_ptr<float>(), grad_out.const_data_ptr<float>(),
                           grad.mutable_data_ptr<float>());
    else
      entity_rows_backward(call, qkv.const_data_ptr<at::BFloat16>(),
                           grad_out.const_data_ptr<float>(), grad.mutable_data_ptr<at::BFloat16>());
    torch::autograd::variable_list none(11);
    none[0] = grad;
    return none;
  }
};

// ---- contexts ----

struct ContextPlan {
  int64_t entities, tokens, first_token, block, first_pair, pairs;
};
struct PairPlan {
  int64_t head, tail;
};

struct ContextCall {
  int64_t heads, width;
  float scale, eps;
  const ContextPlan* documents;
  int64_t count;
  const PairPlan* pairs;
};

// q[l] = sum over heads of a[h][l] · b[h][l], times `scale`, divided by its sum + eps; returns 1 /
// (sum + eps).
DOCRE_CLONES float overlap_row(const float* a, const float* b, int64_t heads, int64_t tokens,
                               float scale, float eps, float* q) {
  std::memset(q, 0, tokens * sizeof(float));
  for (int64_t h = 0; h < heads; h++)
    for (int64_t l = 0; l < tokens; l++) q[l] += a[h * tokens + l] * b[h * tokens + l];
  scale_row(q, scale, tokens);
  float inverse = 1.0f / (sum_row(q, tokens) + eps);
  scale_row(q, inverse, tokens);
  return inverse;
}
DOCRE_CLONES void overlap_row_backward(const float* a, const float* b, const float* ds,
                                       int64_t heads, int64_t tokens, float* da, float* db) {
  for (int64_t h = 0; h < heads; h++)
    for (int64_t l = 0; l < tokens; l++) {
      float g = ds[l], x = a[h * tokens + l], y = b[h * tokens + l];
      da[h * tokens + l] += g * y;
      db[h * tokens + l] += g * x;
    }
}

// Runs body(first pair of the chunk, number) with q [number, tokens], its stride, and inverse
// [number] made.
template <typename Body>
void for_each_chunk(const ContextCall& call, const ContextPlan& document, const float* attention,
                    const Body& body) {
  int64_t stride = spread(document.tokens), block = call.heads * document.tokens;
  std::vector<float> q(kBlockRows * stride), inverse(kBlockRows);
  const float* blocks = attention + document.block * call.heads;
  for (int64_t first = 0; first < document.pairs; first += kBlockRows) {
    int64_t number = std::min(kBlockRows, document.pairs - first);
    for (int64_t i = 0; i < number; i++) {
      const PairPlan& pair = call.pairs[document.first_pair + first + i];
      inverse[i] = overlap_row(blocks + pair.head * block, blocks + pair.tail * block, call.heads,
                               document.tokens, call.scale, call.eps, q.data() + i * stride);
    }
    body(document.first_pair + first, number, q.data(), stride, inverse.data());
  }
}

inline int64_t cost_of(const ContextPlan& document) { return document.pairs * document.tokens; }

inline void contexts_forward(const ContextCall& call, const float* states, const float* attention,
                             float* out) {
  for_each_by_size(
      call.count, [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i) {
        const ContextPlan& document = call.documents[i];
        int64_t wide = padded(call.width), tokens = document.tokens;
        Scratch scratch((tokens + kBlockRows) * wide);
        float *own = scratch.take(tokens * wide), *sums = scratch.take(kBlockRows * wide);
        pack(states + document.first_token * call.width, call.width, own, wide, tokens, call.width,
             1);
        for_each_chunk(
            call, document, attention,
            [&](int64_t first, int64_t number, const float* q, int64_t stride, const float*) {
              multiply_block(q, stride, 1, own, wide, sums, wide, number, call.width, tokens,
                             false);
              unpack(sums, wide, out + first * call.width, call.width, number, call.width, nullptr,
                     1);
            });
      });
}

inline void contexts_backward(const ContextCall& call, const float* states, const float* attention,
                              const float* grad_out, float* grad_states, float* grad_attention) {
  for_each_by_size(
      call.count, [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i) {
        const ContextPlan& document = call.documents[i];
        int64_t tokens = document.tokens, block = call.heads * tokens,
                place = document.first_token * call.width, width = call.width, wide = padded(width),
                long_row = spread(tokens);
        Scratch scratch((2 * tokens + kBlockRows) * wide + (width + kBlockRows) * long_row);
        float *own = scratch.take(tokens * wide), *turned = scratch.take(width * long_row),
              *grads = scratch.take(tokens * wide);
        float *grad = scratch.take(kBlockRows * wide), *dq = scratch.take(kBlockRows * long_row);
        std::memset(grads, 0, tokens * wide * sizeof(float));
        pack(states + place, width, own, wide, tokens, width, 1);
        transpose(own, wide, tokens, width, turned, long_row);
        for_each_chunk(
            call, document, attention,
            [&](int64_t first, int64_t number, const float* q, int64_t stride,
                const float* inverse) {
              pack(grad_out + first * width, width, grad, wide, number, width, 1);
              multiply_block(q, 1, stride, grad, wide, grads, wide, tokens, width, number, true);
              multiply_block(grad, wide, 1, turned, long_row, dq, long_row, number, tokens, width,
                             false);
              for (int64_t r = 0; r < number; r++) {
                float *row = dq + r * long_row, mean = dot_row(row, q + r * stride, tokens);
                for (int64_t l = 0; l < tokens; l++)
                  row[l] = (row[l] - mean) * inverse[r] * call.scale;
                const PairPlan& pair = call.pairs[first + r];
                const float *a = attention + document.block * call.heads + pair.head * block,
                            *b = attention + document.block * call.heads + pair.tail * block;
                overlap_row_backward(a, b, row, call.heads, tokens,
                                     grad_attention + (a - attention),
                                     grad_attention + (b - attention));
              }
            });
        unpack(grads, wide, grad_states + place, width, tokens, width, nullptr, 1);
      });
}

struct Contexts : torch::autograd::Function<Contexts> {
  static ContextCall call_of(const at::Tensor& states, const at::Tensor& documents,
                             const at::Tensor& pairs, int64_t heads, double scale) {
    return {heads,
            states.size(1),
            static_cast<float>(scale),
            1e-5f,
            plan_of<ContextPlan>(documents),
            documents.numel() / 6,
            plan_of<PairPlan>(pairs)};
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& states_any,
                            const at::Tensor& attention, const at::Tensor& documents,
                            const at::Tensor& pairs, int64_t heads, double scale) {
    at::Tensor states = states_any.contiguous();
    TORCH_CHECK(states.dim() == 2 && states.scalar_type() == at::kFloat &&
                    attention.scalar_type() == at::kFloat && attention.is_contiguous(),
                "contexts: 32-bit states [tokens, d] and attention are needed");
    ContextCall call = call_of(states, documents, pairs, heads, scale);
    at::Tensor out = at::zeros({pairs.numel() / 2, states.size(1)}, states.options());
    contexts_forward(call, states.const_data_ptr<float>(), attention.const_data_ptr<float>(),
                     out.mutable_data_ptr<float>());
    ctx->save_for_backward({states, attention, documents, pairs});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["scale"] = scale;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &states = saved[0], &attention = saved[1];
    ContextCall call = call_of(states, saved[2], saved[3], ctx->saved_data["heads"].toInt(),
                               ctx->saved_data["scale"].toDouble());
    at::Tensor grad = grads[0].contiguous(), grad_states = at::zeros_like(states),
               grad_attention = at::zeros_like(attention);
    contexts_backward(call, states.const_data_ptr<float>(), attention.const_data_ptr<float>(),
                      grad.const_data_ptr<float>(), grad_states.mutable_data_ptr<float>(),
                      grad_attention.mutable_data_ptr<float>());
    return {grad_states, grad_attention, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace docre
