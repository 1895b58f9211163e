// The attention that two entities share, summed over spans of tokens such as sentences, document by
// document, without padding. CPU only.
//
// The weights of a pair are those of contexts.hpp: made again here, and never stored. A task uses
// one thread and its own buffers, so its bits depend on the document alone.
#pragma once
#include <limits>

#include "contexts.hpp"

namespace docre {

struct SpanCall {
  ContextCall shared;
  Table<SpanDocument> documents;
  Table<TokenSpan> spans;
};

// Refuses tables that name something that does not exist, and documents that overlap. There are
// `numbers` numbers of attention. Returns the number of sums.
inline int64_t check_call(const SpanCall& call, int64_t numbers) {
  check_call(call.shared, std::numeric_limits<int64_t>::max(), numbers);
  TORCH_CHECK(call.documents.count == call.shared.documents.count, "spans: there are ",
              call.documents.count, " documents with spans, but ", call.shared.documents.count,
              " with pairs");
  int64_t span = 0, sums = 0;
  for (int64_t i = 0; i < call.documents.count; i++) {
    const SpanDocument& document = call.documents[i];
    TORCH_CHECK(document.first_span == span && within(span, document.spans, call.spans.count),
                "spans: the spans of document ", i, ", ", call.documents.numbers(i),
                ", do not follow those of the documents before, or are not in the table of ",
                call.spans.count, " spans");
    int64_t own;
    TORCH_CHECK(document.first_sum == sums &&
                    !__builtin_mul_overflow(call.shared.documents[i].pairs, document.spans, &own) &&
                    !__builtin_add_overflow(sums, own, &sums),
                "spans: the sums of document ", i, ", ", call.documents.numbers(i),
                ", do not follow those of the documents before");
    for (int64_t j = 0; j < document.spans; j++, span++)
      TORCH_CHECK(
          within(call.spans[span].first, call.spans[span].tokens, call.shared.documents[i].tokens),
          "spans: span ", span, ", ", call.spans.numbers(span), ", is not inside of document ", i);
  }
  return sums;
}

// Runs body(document, its spans, their number, its first sum, its first pair) for every document.
template <typename Body>
void for_each_spanned(const SpanCall& call, const Body& body) {
  for_each_by_size(
      call.documents.count, [&](int64_t i) { return cost_of(call.shared.documents[i]); },
      [&](int64_t i) {
        const SpanDocument& own = call.documents[i];
        body(call.shared.documents[i], call.spans.rows + own.first_span, own.spans, own.first_sum);
      });
}

inline void span_sums_forward(const SpanCall& call, const float* attention, float* out) {
  for_each_spanned(call, [&](const ContextDocument& document, const TokenSpan* spans, int64_t count,
                             int64_t first_sum) {
    float* own = out + first_sum;
    for_each_chunk(call.shared, document, attention,
                   [&](int64_t, int64_t number, const float* q, int64_t stride, const float*) {
                     for (int64_t r = 0; r < number; r++, own += count)
                       for (int64_t j = 0; j < count; j++)
                         own[j] = sum_row(q + r * stride + spans[j].first, spans[j].tokens);
                   });
  });
}

inline void span_sums_backward(const SpanCall& call, const float* attention, const float* grad_out,
                               float* grad_attention) {
  for_each_spanned(call, [&](const ContextDocument& document, const TokenSpan* spans, int64_t count,
                             int64_t first_sum) {
    int64_t tokens = document.tokens, heads = call.shared.heads, block = heads * tokens;
    const float *grad = grad_out + first_sum, *blocks = attention + document.first_cell * heads;
    float* grads = grad_attention + document.first_cell * heads;
    std::vector<float> row(tokens);
    for_each_chunk(
        call.shared, document, attention,
        [&](int64_t first, int64_t number, const float* q, int64_t stride, const float* inverse) {
          for (int64_t r = 0; r < number; r++, grad += count) {
            std::fill(row.begin(), row.end(), 0.0f);
            for (int64_t j = 0; j < count; j++)
              for (int64_t l = 0; l < spans[j].tokens; l++) row[spans[j].first + l] += grad[j];
            float mean = dot_row(row.data(), q + r * stride, tokens);
            for (int64_t l = 0; l < tokens; l++)
              row[l] = (row[l] - mean) * inverse[r] * call.shared.scale;
            const ContextPair& pair = call.shared.pairs[first + r];
            overlap_row_backward(blocks + pair.head * block, blocks + pair.tail * block, row.data(),
                                 heads, tokens, grads + pair.head * block,
                                 grads + pair.tail * block);
          }
        });
  });
}

struct SpanSums : torch::autograd::Function<SpanSums> {
  static SpanCall call_of(const at::Tensor& attention, const at::Tensor& documents,
                          const at::Tensor& pairs, const at::Tensor& span_documents,
                          const at::Tensor& spans, int64_t heads, double scale, double epsilon) {
    check_attention("spans", attention);
    return {{heads,
             0,
             static_cast<float>(scale),
             static_cast<float>(epsilon),
             {"spans", "documents", documents},
             {"spans", "pairs", pairs}},
            {"spans", "documents with spans", span_documents},
            {"spans", "spans", spans}};
  }
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& attention,
                            const at::Tensor& documents, const at::Tensor& pairs,
                            const at::Tensor& span_documents, const at::Tensor& spans,
                            int64_t heads, double scale, double epsilon) {
    SpanCall call =
        call_of(attention, documents, pairs, span_documents, spans, heads, scale, epsilon);
    at::Tensor out = at::zeros({check_call(call, attention.numel())}, attention.options());
    span_sums_forward(call, attention.const_data_ptr<float>(), out.mutable_data_ptr<float>());
    ctx->save_for_backward({attention, documents, pairs, span_documents, spans});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["epsilon"] = epsilon;
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor& attention = saved[0];
    SpanCall call =
        call_of(attention, saved[1], saved[2], saved[3], saved[4], ctx->saved_data["heads"].toInt(),
                ctx->saved_data["scale"].toDouble(), ctx->saved_data["epsilon"].toDouble());
    at::Tensor grad = grads[0].contiguous(), grad_attention = at::zeros_like(attention);
    span_sums_backward(call, attention.const_data_ptr<float>(), grad.const_data_ptr<float>(),
                       grad_attention.mutable_data_ptr<float>());
    return {grad_attention, at::Tensor(), at::Tensor(), at::Tensor(),
            at::Tensor(),   at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace docre
