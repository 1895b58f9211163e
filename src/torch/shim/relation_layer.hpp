// Both uses of the relation layer's weight W [w, d, d] (component, head, tail) on a GPU with one
// gradient: the products with tails, and the one matrix of ranking scores. The weight is by far the
// largest tensor of a model; two gradients of it would be made and added.
#pragma once
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace docre {

struct RelationLayer : torch::autograd::Function<RelationLayer> {
  // weight [w, d, d], tails [T, d], score [1, w] -> by tail [T, w, d] and the matrix [d, d].
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& weight, const at::Tensor& tails,
                                                const at::Tensor& score) {
    TORCH_CHECK(weight.dim() == 3 && weight.is_contiguous() && tails.dim() == 2 &&
                    tails.size(1) == weight.size(2) &&
                    score.sizes() == at::IntArrayRef({1, weight.size(0)}),
                "relation layer: tails ", tails.sizes(), " and score ", score.sizes(),
                " do not fit the weight ", weight.sizes());
    ctx->save_for_backward({weight, tails, score});
    ctx->set_materialize_grads(false);
    int64_t width = weight.size(0), inner = weight.size(1);
    at::Tensor by_tail = at::mm(tails, weight.view({width * inner, -1}).t());
    at::Tensor matrix = at::mm(score, weight.view({width, -1}));
    return {by_tail.view({tails.size(0), width, inner}), matrix.view({inner, -1})};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &weight = saved[0], &tails = saved[1], &score = saved[2];
    int64_t width = weight.size(0), inner = weight.size(1);
    at::Tensor of_weight, of_tails, of_score, flat;
    if (grads[0].defined()) {
      flat = grads[0].reshape({tails.size(0), width * inner});
      of_weight = at::mm(flat.t(), tails).view({width, -1});
      of_tails = at::mm(flat, weight.view({width * inner, -1}));
    }
    if (grads[1].defined()) {
      at::Tensor matrix = grads[1].reshape({1, -1});
      of_score = at::mm(matrix, weight.view({width, -1}).t());
      // Without a second copy of the gradient.
      of_weight =
          of_weight.defined() ? of_weight.addr_(score[0], matrix[0]) : at::mm(score.t(), matrix);
    }
    if (of_weight.defined()) of_weight = of_weight.view_as(weight);
    return {of_weight, of_tails, of_score};
  }
};

}  // namespace docre
