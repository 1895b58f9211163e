// A linear layer of 16-bit numbers over weights of 32 bits, by libtorch's products: for GPUs.
//
// libtorch's own layer would cast the weight and the bias where they are used, and their gradients
// back: four small kernels more. Here products give 32 bits at once.
#pragma once
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>

namespace docre {

// x [rows, in] of any kind, weight [out, in] and bias [out] of 32 bits -> [rows, out] of `kind`.
struct HalfLinear : torch::autograd::Function<HalfLinear> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x_any,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            at::ScalarType kind) {
    TORCH_CHECK(x_any.dim() == 2 && weight.dim() == 2, "linear: x ", x_any.sizes(),
                " and the weight ", weight.sizes(), " must be matrices");
    at::Tensor x = x_any.to(kind), narrow = weight.to(kind);
    ctx->save_for_backward({x, narrow});
    ctx->saved_data["kind"] = x_any.scalar_type();
    ctx->saved_data["bias"] = bias.has_value();
    return bias ? at::addmm(bias->to(kind), x, narrow.t()) : at::mm(x, narrow.t());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &narrow = saved[1], &grad = grads[0];
    at::ScalarType kind = ctx->saved_data["kind"].toScalarType();
    at::Tensor of_x, of_weight, of_bias;
    if (ctx->needs_input_grad(0)) of_x = product(grad, narrow, kind);
    if (ctx->needs_input_grad(1)) of_weight = product(grad.t(), x, at::kFloat);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2))
      of_bias = at::sum(grad, {0}, false, at::kFloat);
    return {of_x, of_weight, of_bias, at::Tensor()};
  }

 private:
  static at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType kind) {
    return kind == a.scalar_type() ? at::mm(a, b) : at::mm(a, b, kind);
  }
};

}  // namespace docre
