// What tch does not offer: our own kernels, fused Adam, gradient hooks, generators, streams, memory
// statistics.
//
// Only symbols of libtorch_cpu and libc10 are used, so that one binary serves machines with and
// without CUDA. Every function that can fail returns 0, or -1 with a message in docre_last_error
// (of the calling thread).
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "activation.hpp"
#include "attention.hpp"
#include "contexts.hpp"
#include "entity_rows.hpp"
#include "grouped.hpp"
#include "guard.hpp"
#include "half_linear.hpp"
#include "half_product.hpp"
#include "lstm_function.hpp"
#include "norm.hpp"
#include "optimizer.hpp"
#include "product.hpp"
#include "relation_layer.hpp"
#include "runtime.hpp"
#include "scratch.hpp"
#include "span_sums.hpp"

// Present if libtorch was built with MKL. It sets a number of threads that MKL uses outside of
// parallel regions.
extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));

namespace {
std::optional<at::Tensor> maybe(const at::Tensor* tensor) {
  return tensor ? std::optional<at::Tensor>(*tensor) : std::nullopt;
}
// Whether gradients will be asked for; within a function of autograd this cannot be told.
bool learns(std::initializer_list<const at::Tensor*> inputs) {
  return at::GradMode::is_enabled() &&
         std::any_of(inputs.begin(), inputs.end(),
                     [](const at::Tensor* input) { return input && input->requires_grad(); });
}
}  // namespace

using docre::guarded;
using docre::TensorList;

extern "C" {
const char* docre_last_error() {
  const std::string& message = docre::last_error();
  return message.empty() ? "no memory for the error message" : message.c_str();
}

// ---- layers ----
// `terms` are the index of distances, key table, query table, bias and rotary angles, or null.
int docre_attention(const at::Tensor* qkv, const at::Tensor* offsets, const at::Tensor* keys,
                    int64_t salt, double p, const at::Tensor* const* terms, int64_t window,
                    double scale, at::Tensor* out) {
  return guarded([&] {
    *out = docre::VarlenAttention::apply(*qkv, *offsets, maybe(keys), salt, p, maybe(terms[0]),
                                         maybe(terms[1]), maybe(terms[2]), maybe(terms[3]),
                                         maybe(terms[4]), window, scale);
  });
}
int docre_flash_attention(const at::Tensor* qkv, const at::Tensor* offsets, int64_t longest,
                          double p, int64_t window, double scale, at::Tensor* out) {
  return guarded([&] { *out = docre::flash_attention(*qkv, *offsets, longest, p, window, scale); });
}
int docre_dropout(const at::Tensor* x, const at::Tensor* keys, int64_t salt, double p,
                  at::Tensor* out) {
  return guarded([&] { *out = docre::Dropout::apply(*x, *keys, salt, p); });
}
int docre_product(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, int turned,
                  at::Tensor* out) {
  return guarded([&] { *out = docre::Product::apply(*x, *weight, maybe(bias), turned != 0); });
}
// `function` is an Activation, or less than 0.
int docre_half_product(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias,
                       int turned, int64_t function, at::Tensor* out) {
  return guarded([&] {
    *out = docre::HalfProduct::apply(*x, *weight, maybe(bias), turned != 0, function,
                                     learns({x, weight, bias}));
  });
}
int docre_half_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias,
                      at::Tensor* out) {
  return guarded([&] { *out = docre::HalfLinear::apply(*x, *weight, maybe(bias), at::kBFloat16); });
}
int docre_batched_product(const at::Tensor* x, const at::Tensor* y, int turned, at::Tensor* out) {
  return guarded([&] { *out = docre::BatchedProduct::apply(*x, *y, turned != 0); });
}
int docre_sum_norm(const at::Tensor* x, const at::Tensor* y, const at::Tensor* weight,
                   const at::Tensor* bias, const at::Tensor* keys, int64_t salt, double p,
                   double epsilon, at::Tensor* out) {
  return guarded([&] {
    *out = docre::SumNorm::apply(*x, maybe(y), *weight, maybe(bias), maybe(keys), salt, p, epsilon,
                                 learns({x, y, weight, bias}));
  });
}
int docre_activation(const at::Tensor* x, int64_t kind, at::Tensor* out) {
  return guarded([&] { *out = docre::Activated::apply(*x, kind); });
}
int docre_log_sum_exp(const at::Tensor* x, at::Tensor* out) {
  return guarded([&] { *out = docre::LogSumExp::apply(*x); });
}
// `weights` holds four for each direction. `out` receives the states, the final hidden state and
// the final cell.
int docre_lstm(const at::Tensor* x, const at::Tensor* offsets, const at::Tensor* hidden,
               const at::Tensor* cell, at::Tensor* const* weights, size_t count,
               at::Tensor* const* out) {
  return guarded([&] {
    std::vector<at::Tensor> list;
    for (size_t i = 0; i < count; i++) list.push_back(*weights[i]);
    auto states =
        docre::PackedLstm::apply(*x, *offsets, maybe(hidden), maybe(cell), at::TensorList(list));
    for (size_t i = 0; i < states.size(); i++) *out[i] = states[i];
  });
}

// ---- pairs of entities ----
int docre_entity_rows(const at::Tensor* qkv, const at::Tensor* offsets, const at::Tensor* keys,
                      int64_t salt, double p, const at::Tensor* documents, const at::Tensor* rows,
                      const at::Tensor* weights, const at::Tensor* windows, const at::Tensor* parts,
                      const at::Tensor* const* terms, int64_t window, double scale,
                      at::Tensor* out) {
  return guarded([&] {
    *out =
        docre::EntityRows::apply(*qkv, *offsets, maybe(keys), salt, p, *documents, *rows, *weights,
                                 *windows, *parts, maybe(terms[0]), maybe(terms[1]),
                                 maybe(terms[2]), maybe(terms[3]), maybe(terms[4]), window, scale);
  });
}
int docre_contexts(const at::Tensor* states, const at::Tensor* attention,
                   const at::Tensor* documents, const at::Tensor* pairs, int64_t heads,
                   double scale, double epsilon, at::Tensor* out) {
  return guarded([&] {
    *out = docre::Contexts::apply(*states, *attention, *documents, *pairs, heads, scale, epsilon);
  });
}
// `tables` are documents, pairs, documents with spans, and spans.
int docre_span_sums(const at::Tensor* attention, const at::Tensor* const* tables, int64_t heads,
                    double scale, double epsilon, at::Tensor* out) {
  return guarded([&] {
    *out = docre::SpanSums::apply(*attention, *tables[0], *tables[1], *tables[2], *tables[3], heads,
                                  scale, epsilon);
  });
}
int docre_relation_layer(const at::Tensor* weight, const at::Tensor* tails, const at::Tensor* score,
                         at::Tensor* by_tail, at::Tensor* matrix) {
  return guarded([&] {
    auto both = docre::RelationLayer::apply(*weight, *tails, *score);
    *by_tail = both[0];
    *matrix = both[1];
  });
}
int docre_grouped_bilinear(const at::Tensor* head, const at::Tensor* tail, const at::Tensor* weight,
                           int64_t blocks, at::Tensor* out) {
  return guarded([&] { *out = docre::GroupedBilinear::apply(*head, *tail, *weight, blocks); });
}

// ---- optimiser ----
int docre_set_grad(at::Tensor* parameter, const at::Tensor* grad) {
  return guarded([&] { parameter->mutable_grad() = *grad; });
}
int docre_fused_adam(at::Tensor* const* p, at::Tensor* const* g, at::Tensor* const* m,
                     at::Tensor* const* v, at::Tensor* const* largest, at::Tensor* const* steps,
                     size_t n, const at::Tensor* divisor, double lr, double beta1, double beta2,
                     double weight_decay, double eps, int decoupled, int amsgrad) {
  return guarded([&] {
    docre::TensorList maxima{largest, amsgrad != 0 ? n : 0};
    docre::fused_adam(TensorList{p, n}, TensorList{g, n}, TensorList{m, n}, TensorList{v, n},
                      maxima, TensorList{steps, n}, maybe(divisor), lr, beta1, beta2, weight_decay,
                      eps, decoupled != 0, amsgrad != 0);
  });
}
int docre_list_add(at::Tensor* const* list, size_t n, double number) {
  return guarded([&] { docre::add_to_all(TensorList{list, n}, number); });
}
int docre_gather(at::Tensor* const* to, at::Tensor* const* from, size_t n) {
  return guarded([&] { docre::copy_all(TensorList{to, n}, TensorList{from, n}); });
}
int docre_list_norm(at::Tensor* const* list, size_t n, at::Tensor* out) {
  return guarded([&] { *out = docre::list_norm(TensorList{list, n}); });
}
int docre_square_sum(const at::Tensor* flat, double* sum) {
  return guarded([&] { *sum = docre::square_sum(*flat); });
}

// ---- gradient hooks ----
// `call` returns 0, or anything else to make backward fail. `release` frees `context`. It is called
// once, even if the hook cannot be set.
int docre_hook_set(at::Tensor* parameter, int (*call)(void*), void (*release)(void*),
                   void* context) {
  return guarded([&] {
    docre::HookContext owned(context, release);
    auto hook = std::make_unique<docre::ReadyHook>(call, std::move(owned));
    torch::autograd::impl::set_post_acc_grad_hooks(*parameter, std::move(hook));
  });
}
int docre_hook_clear(at::Tensor* parameter) {
  return guarded([&] { torch::autograd::impl::set_post_acc_grad_hooks(*parameter, nullptr); });
}

// ---- runtime ----
void docre_local_threads(int threads) {
  omp_set_num_threads(threads);
  if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(threads);
}
// For tests. The first makes two Scratch objects at a time, the second takes more than there is;
// both fail.
int docre_second_scratch() {
  return guarded([] {
    docre::Scratch first(16);
    docre::Scratch second(16);
  });
}
int docre_overdrawn_scratch() {
  return guarded([] { docre::Scratch(16).take(1 << 20); });
}
int docre_generator_new(uint64_t seed, at::Generator** out) {
  return guarded([&] { *out = new at::Generator(at::detail::createCPUGenerator(seed)); });
}
void docre_generator_free(at::Generator* generator) { delete generator; }
int docre_generator_draw(at::Generator* generator, const int64_t* shape, size_t dimensions,
                         int normal, double from, double to, at::Tensor* out) {
  return guarded([&] {
    *out = docre::drawn(*generator, at::IntArrayRef(shape, dimensions), normal != 0, from, to);
  });
}
int docre_cuda_set_device(int64_t index) {
  return guarded([&] { docre::cuda().setDevice(docre::cuda_device(index)); });
}
// The copy reads memory that the device can read by itself, so nobody waits for it.
int docre_upload(const at::Tensor* host, int64_t index, at::Tensor* out) {
  return guarded([&] { *out = host->pin_memory().to(docre::cuda_device(index), true); });
}
int docre_gpu_products(int tf32) {
  return guarded([&] { docre::choose_gpu_products(tf32 != 0); });
}
int docre_exact_gpu_recurrence() {
  return guarded([] { docre::make_gpu_recurrence_exact(); });
}
int docre_gpu_products_are_tf32(int* tf32) {
  return guarded([&] { *tf32 = at::globalContext().allowTF32CuBLAS() ? 1 : 0; });
}
int docre_gpu_recurrence_is_tf32(int* tf32) {
  return guarded([&] { *tf32 = at::globalContext().allowTF32CuDNN(at::Float32Op::RNN) ? 1 : 0; });
}
int docre_cuda_memory_bytes(int64_t index, int64_t* current, int64_t* peak) {
  return guarded([&] {
    const auto bytes = c10::getDeviceAllocator(at::kCUDA)
                           ->getDeviceStats(static_cast<c10::DeviceIndex>(index))
                           .allocated_bytes[0];
    *current = bytes.current;
    *peak = bytes.peak;
  });
}
int docre_stream_new(int64_t index, c10::Stream** out) {
  return guarded([&] {
    *out = new c10::Stream(docre::cuda().getStreamFromGlobalPool(docre::cuda_device(index), true));
  });
}
void docre_stream_free(c10::Stream* stream) { delete stream; }
int docre_stream_handle(const c10::Stream* stream, void** handle) {
  return guarded([&] { *handle = stream->native_handle(); });
}
int docre_stream_wait_current(const c10::Stream* stream) {
  return guarded([&] {
    // A thread that has not chosen a device uses the first one, and an event guard would create a
    // context there.
    docre::cuda().setDevice(stream->device());
    docre::let_wait(*stream, docre::cuda().getStream(stream->device()));
  });
}
int docre_stream_current_waits(const c10::Stream* stream) {
  return guarded([&] { docre::let_wait(docre::cuda().getStream(stream->device()), *stream); });
}
}
