// Contexts of pairs of entities (ATLOP's localized context pooling), document by document, without
// padding. CPU only.
//
// A task uses one thread and its own buffers, so its bits depend on the document alone. The
// attention of entities is the result of entity_rows.hpp.
#pragma once
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "checks.hpp"
#include "panel.hpp"
#include "rows.hpp"
#include "scratch.hpp"
#include "tasks.hpp"

namespace docre {

inline void check_attention(const char* who, const at::Tensor& attention) {
  TORCH_CHECK(attention.scalar_type() == at::kFloat && attention.is_contiguous() &&
                  attention.device().is_cpu(),
              who, ": attention must be contiguous 32-bit floats on the CPU, not ",
              attention.sizes(), " of ", attention.scalar_type(), " on ", attention.device());
}

struct ContextCall {
  int64_t heads, width;
  float scale, epsilon;
  Table<ContextDocument> documents;
  Table<ContextPair> pairs;
};

// Refuses tables that name something that does not exist, and documents that overlap, because tasks
// write side by side. There are `tokens` states and `numbers` numbers of attention.
inline void check_call(const ContextCall& call, int64_t tokens, int64_t numbers) {
  int64_t token = 0, pair = 0, cells = 0;
  for (int64_t i = 0; i < call.documents.count; i++) {
    const ContextDocument& document = call.documents[i];
    TORCH_CHECK(add_cells(document, cells), "contexts: the cells of document ", i, ", ",
                call.documents.numbers(i), ", do not follow those of the documents before");
    TORCH_CHECK(document.first_token == token && within(token, document.tokens, tokens),
                "contexts: the tokens of document ", i, ", ", call.documents.numbers(i),
                ", do not follow those of the documents before, or are not among the ", tokens,
                " states");
    TORCH_CHECK(document.first_pair == pair && within(pair, document.pairs, call.pairs.count),
                "contexts: the pairs of document ", i, ", ", call.documents.numbers(i),
                ", do not follow those of the documents before, or are not in the table of ",
                call.pairs.count, " pairs");
    TORCH_CHECK(document.pairs == 0 ||
                    all_below(&call.pairs[pair].head, 2 * document.pairs, 1, document.entities),
                "contexts: a pair of document ", i, " names an entity outside of its ",
                document.entities);
    token += document.tokens;
    pair += document.pairs;
  }
  int64_t needed;
  TORCH_CHECK(
      call.heads > 0 && !__builtin_mul_overflow(cells, call.heads, &needed) && needed == numbers,
      "contexts: ", cells, " cells of ", call.heads, " heads do not fit attention of ", numbers,
      " numbers");
}

// q[l] = scale · (sum over heads of a[h][l] · b[h][l]), divided by the sum of these numbers +
// epsilon. Returns 1 / (sum + epsilon).
DOCRE_CLONES float overlap_row(const float* a, const float* b, int64_t heads, int64_t tokens,
                               float scale, float epsilon, float* q) {
  std::memset(q, 0, tokens * sizeof(float));
  for (int64_t h = 0; h < heads; h++)
    for (int64_t l = 0; l < tokens; l++) q[l] += a[h * tokens + l] * b[h * tokens + l];
  scale_row(q, scale, tokens);
  float inverse = 1.0f / (sum_row(q, tokens) + epsilon);
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

// Computes q [number, tokens] and inverse [number] for chunks of pairs, and runs body(first pair of
// the chunk, number, q, its stride, inverse).
template <typename Body>
void for_each_chunk(const ContextCall& call, const ContextDocument& document,
                    const float* attention, const Body& body) {
  int64_t stride = spread(document.tokens), block = call.heads * document.tokens;
  std::vector<float> q(kBlockRows * stride), inverse(kBlockRows);
  const float* blocks = attention + document.first_cell * call.heads;
  for (int64_t first = 0; first < document.pairs; first += kBlockRows) {
    int64_t number = std::min(kBlockRows, document.pairs - first);
    for (int64_t i = 0; i < number; i++) {
      const ContextPair& pair = call.pairs[document.first_pair + first + i];
      inverse[i] = overlap_row(blocks + pair.head * block, blocks + pair.tail * block, call.heads,
                               document.tokens, call.scale, call.epsilon, q.data() + i * stride);
    }
    body(document.first_pair + first, number, q.data(), stride, inverse.data());
  }
}

inline int64_t cost_of(const ContextDocument& document) { return document.pairs * document.tokens; }

inline void contexts_forward(const ContextCall& call, const float* states, const float* attention,
                             float* out) {
  for_each_by_size(
      call.documents.count, [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i) {
        const ContextDocument& document = call.documents[i];
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
      call.documents.count, [&](int64_t i) { return cost_of(call.documents[i]); },
      [&](int64_t i) {
        const ContextDocument& document = call.documents[i];
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
                const ContextPair& pair = call.pairs[first + r];
                const float *a = attention + document.first_cell * call.heads + pair.head * block,
                            *b = attention + document.first_cell * call.heads + pair.tail * block;
                overlap_row_backward(a, b, row, call.heads, tokens,
                                     grad_attention + (a - attention),
                                     grad_attention + (b - attention));
              }
            });
        unpack(grads, wide, grad_states + place, width, tokens, width, nullptr, 1);
      });
}

struct Contexts : torch::autograd::Function<Contexts> {
  static ContextCall call_of(const at::Tensor& states, const at::Tensor& attention,
                             const at::Tensor& documents, const at::Tensor& pairs, int64_t heads,
                             double scale, double epsilon) {
    TORCH_CHECK(states.dim() == 2 && states.scalar_type() == at::kFloat && states.device().is_cpu(),
                "contexts: states must be [tokens, width] of 32-bit floats on the CPU, not ",
                states.sizes(), " of ", states.scalar_type(), " on ", states.device());
    check_attention("contexts", attention);
    return {heads,
            states.size(1),
            static_cast<float>(scale),
            static_cast<float>(epsilon),
            {"contexts", "documents", documents},
            {"contexts", "pairs", pairs}};
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& states_any,
                            const at::Tensor& attention, const at::Tensor& documents,
                            const at::Tensor& pairs, int64_t heads, double scale, double epsilon) {
    at::Tensor states = states_any.contiguous();
    ContextCall call = call_of(states, attention, documents, pairs, heads, scale, epsilon);
    check_call(call, states.size(0), attention.numel());
    at::Tensor out = at::zeros({call.pairs.count, states.size(1)}, states.options());
    contexts_forward(call, states.const_data_ptr<float>(), attention.const_data_ptr<float>(),
                     out.mutable_data_ptr<float>());
    ctx->save_for_backward({states, attention, documents, pairs});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["epsilon"] = epsilon;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &states = saved[0], &attention = saved[1];
    ContextCall call =
        call_of(states, attention, saved[2], saved[3], ctx->saved_data["heads"].toInt(),
                ctx->saved_data["scale"].toDouble(), ctx->saved_data["epsilon"].toDouble());
    at::Tensor grad = grads[0].contiguous(), grad_states = at::zeros_like(states),
               grad_attention = at::zeros_like(attention);
    contexts_backward(call, states.const_data_ptr<float>(), attention.const_data_ptr<float>(),
                      grad.const_data_ptr<float>(), grad_states.mutable_data_ptr<float>(),
                      grad_attention.mutable_data_ptr<float>());
    return {grad_states,  grad_attention, at::Tensor(), at::Tensor(),
            at::Tensor(), at::Tensor(),   at::Tensor()};
  }
};

}  // namespace docre
