// A GPU that is not there, for tests: CUDA device 0, whose memory is the host's and whose kernels
// are those of the CPU. Code that asks for a GPU takes the branches that it takes on one. What it
// would start there, and where it would wait, is counted.
//
// Nothing else refers to this file, so the linker leaves it out of the program.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <set>
#include <string>

namespace {
const c10::Device kDevice(c10::DeviceType::CUDA, 0);

// ---- counts ----
std::mutex lock;
// By kind ("launch", "upload", "wait") and operation.
std::map<std::pair<std::string, std::string>, int64_t> counts;
// Memory of the host that copies do not wait for.
std::set<const void*> pinned;

void count(const char* kind, const std::string& operation) {
  std::lock_guard<std::mutex> held(lock);
  counts[{kind, operation}]++;
}

// ---- the device ----
struct MockGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  // Everything has happened when a call returns.
  void record(void**, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}

 private:
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
};

// What the parts of libtorch that know CUDA ask.
struct MockHooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(c10::DeviceIndex) const override { count("wait", "for the device"); }
  // Kernels of the CPU draw from it.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

// Another storage over the same memory, said to be on `device`.
c10::Storage same_memory(const c10::Storage& storage, c10::Device device) {
  auto* owner = new c10::Storage(storage);
  auto release = [](void* kept) { delete static_cast<c10::Storage*>(kept); };
  return {c10::Storage::use_byte_size_t(), storage.nbytes(),
          c10::DataPtr(storage.mutable_data(), owner, release, device), nullptr, false};
}

at::Tensor like(const at::Tensor& tensor, const c10::Storage& storage, c10::DispatchKey key) {
  at::Tensor out = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(key), tensor.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                   tensor.storage_offset());
  return out;
}

// The tensors of one call, as the kernels of the CPU take them.
class Call {
 public:
  bool had_both() const { return on_device && on_host; }

  at::Tensor host(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      on_host |= tensor.dim() > 0;
      return tensor;
    }
    on_device = true;
    if (tensor.storage().nbytes() == 0) return without_numbers(tensor);
    const auto* own = tensor.storage().unsafeGetStorageImpl();
    auto found = storages.find(own);
    if (found == storages.end())
      found = storages.emplace(own, same_memory(tensor.storage(), at::kCPU)).first;
    at::Tensor out = like(tensor, found->second, c10::DispatchKey::CPU);
    device_storage.emplace(out.storage().unsafeGetStorageImpl(), tensor.storage());
    given.emplace(out.unsafeGetTensorImpl(), tensor);
    kept.push_back(out);
    return out;
  }

  at::Tensor device(const at::Tensor& tensor) const {
    if (!tensor.defined()) return tensor;
    auto itself = given.find(tensor.unsafeGetTensorImpl());
    if (itself != given.end()) {
      if (itself->second.storage().nbytes() < tensor.storage().nbytes())
        adopt(itself->second, tensor);
      return itself->second;
    }
    auto base = device_storage.find(tensor.storage().unsafeGetStorageImpl());
    return like(
        tensor,
        base == device_storage.end() ? same_memory(tensor.storage(), kDevice) : base->second,
        c10::DispatchKey::CUDA);
  }

  c10::IValue host(const c10::IValue& value) {
    if (value.isTensor()) return host(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(host(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional<at::Tensor>(host(*tensor)) : std::nullopt);
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) return c10::Device(at::kCPU);
    return value;
  }

  c10::IValue device(const c10::IValue& value) const {
    if (value.isTensor()) return device(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(device(tensor));
    return list;
  }

 private:
  // A kernel may make such a tensor larger: that of a result which is still to be written.
  at::Tensor without_numbers(const at::Tensor& tensor) {
    at::Tensor out = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
    given.emplace(out.unsafeGetTensorImpl(), tensor);
    kept.push_back(out);
    return out;
  }
  static void adopt(const at::Tensor& to, const at::Tensor& from) {
    c10::TensorImpl* own = to.unsafeGetTensorImpl();
    own->set_storage_keep_dtype(same_memory(from.storage(), kDevice));
    own->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
  }

  bool on_device = false, on_host = false;
  std::map<const c10::StorageImpl*, c10::Storage> storages;
  std::map<const c10::StorageImpl*, c10::Storage> device_storage;
  std::map<const c10::TensorImpl*, at::Tensor> given;
  std::vector<at::Tensor> kept;
};

// ---- what an operation does on a GPU ----
bool is_view(const c10::FunctionSchema& schema) {
  if (schema.returns().empty()) return false;
  for (const c10::Argument& result : schema.returns())
    if (!result.alias_info() || result.alias_info()->isWrite()) return false;
  return true;
}

bool begins(const std::string& name, const char* start) { return name.rfind(start, 0) == 0; }

bool only_allocates(const std::string& name) {
  return begins(name, "aten::empty") || begins(name, "aten::new_empty") ||
         begins(name, "aten::resize_") || begins(name, "aten::set_");
}

// Its result, or the size of its result, is needed on the host.
bool waits(const std::string& name) {
  for (const char* start :
       {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select",
        "aten::_unique", "aten::unique", "aten::repeat_interleave", "aten::bincount"})
    if (begins(name, start)) return true;
  return false;
}

void count_operation(const c10::OperatorHandle& op) {
  std::string name = c10::toString(op.operator_name());
  if (is_view(op.schema()) || only_allocates(name)) return;
  count("launch", name);
  if (waits(name)) count("wait", name);
}

void run_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  count_operation(op);
  at::AutoDispatchBelowADInplaceOrView guard;
  size_t arguments = op.schema().arguments().size(), results = op.schema().returns().size();
  Call call;
  for (size_t i = stack->size() - arguments; i < stack->size(); i++)
    (*stack)[i] = call.host((*stack)[i]);
  std::string name = c10::toString(op.operator_name());
  TORCH_CHECK(!call.had_both() || begins(name, "aten::index"), name,
              ": some tensors are on the device, others on the host");
  op.callBoxed(stack);
  for (size_t i = stack->size() - results; i < stack->size(); i++)
    (*stack)[i] = call.device((*stack)[i]);
}

bool is_pinned(const at::Tensor& tensor) {
  std::lock_guard<std::mutex> held(lock);
  return pinned.count(tensor.storage().data()) > 0;
}

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (to.is_cuda() && from.is_cuda()) {
    count("launch", "aten::copy_");
  } else {
    bool asynchronous = non_blocking && is_pinned(to.is_cuda() ? from : to);
    count("upload", to.is_cuda() ? "to the device" : "to the host");
    if (!asynchronous) count("wait", to.is_cuda() ? "copy to the device" : "copy to the host");
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  Call call;
  at::Tensor target = call.host(to);
  target.copy_(call.host(from));
  return to;
}

at::Tensor pin(const at::Tensor& tensor, std::optional<c10::Device>) {
  at::Tensor out = tensor.clone();
  void* data = out.storage().mutable_data();
  {
    std::lock_guard<std::mutex> held(lock);
    pinned.insert(data);
  }
  auto release = [](void* kept) {
    auto* storage = static_cast<c10::Storage*>(kept);
    {
      std::lock_guard<std::mutex> held(lock);
      pinned.erase(storage->data());
    }
    delete storage;
  };
  auto* owner = new c10::Storage(out.storage());
  c10::Storage storage(c10::Storage::use_byte_size_t(), out.storage().nbytes(),
                       c10::DataPtr(data, owner, release, at::kCPU), nullptr, false);
  return like(out, storage, c10::DispatchKey::CPU);
}

bool says_pinned(const at::Tensor& tensor, std::optional<c10::Device>) {
  return tensor.device().is_cpu() && is_pinned(tensor);
}

// ---- kernels that the CPU does not have ----
// The product of 16-bit numbers with a result of 32 bits.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b, c10::ScalarType kind) {
  count("launch", "aten::mm.dtype");
  at::AutoDispatchBelowADInplaceOrView guard;
  Call call;
  return call.device(at::mm(call.host(a).to(kind), call.host(b).to(kind)));
}

// One document of flash attention in 32 bits; [heads, tokens, width].
struct Document {
  at::Tensor q, k, v, weights, log_sum;

  Document(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, int64_t first,
           int64_t length, double scale) {
    auto part = [&](const at::Tensor& all) {
      return all.narrow(0, first, length).transpose(0, 1).to(at::kFloat);
    };
    q = part(query);
    k = part(key);
    v = part(value);
    at::Tensor scores = q.matmul(k.transpose(1, 2)) * scale;
    log_sum = at::logsumexp(scores, -1);
    weights = at::softmax(scores, -1);
  }
};

template <typename Body>
void for_documents(const at::Tensor& offsets, const Body& body) {
  const int32_t* numbers = offsets.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < offsets.numel(); i++)
    if (numbers[i + 1] > numbers[i]) body(numbers[i], numbers[i + 1] - numbers[i]);
}

using Sym = c10::SymInt;
using MaybeTensor = std::optional<at::Tensor>;

// Dropout and windows are left out.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> flash(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const MaybeTensor& offsets, const MaybeTensor&, Sym, Sym, double, bool, bool,
    std::optional<double> scale, std::optional<Sym>, std::optional<Sym>, const MaybeTensor&,
    const MaybeTensor&) {
  count("launch", "aten::_flash_attention_forward");
  at::AutoDispatchBelowADInplaceOrView guard;
  Call call;
  at::Tensor q = call.host(query), k = call.host(key), v = call.host(value);
  at::Tensor out = at::empty(q.sizes(), q.options());
  at::Tensor log_sum = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
  for_documents(call.host(*offsets), [&](int64_t first, int64_t length) {
    Document own(q, k, v, first, length, scale.value());
    out.narrow(0, first, length).copy_(own.weights.matmul(own.v).transpose(0, 1));
    log_sum.narrow(1, first, length).copy_(own.log_sum);
  });
  at::Tensor none = at::empty({0}, q.options());
  return {call.device(out), call.device(log_sum), call.device(none), call.device(none),
          call.device(none)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> flash_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor&, const at::Tensor&, const at::Tensor& offsets, const at::Tensor&, Sym, Sym,
    double, bool, const at::Tensor&, const at::Tensor&, std::optional<double> scale,
    std::optional<Sym>, std::optional<Sym>) {
  count("launch", "aten::_flash_attention_backward");
  at::AutoDispatchBelowADInplaceOrView guard;
  Call call;
  at::Tensor q = call.host(query), k = call.host(key), v = call.host(value), g = call.host(grad);
  at::Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty_like(dq),
             dv = at::empty_like(dq);
  for_documents(call.host(offsets), [&](int64_t first, int64_t length) {
    Document own(q, k, v, first, length, scale.value());
    at::Tensor above = g.narrow(0, first, length).transpose(0, 1).to(at::kFloat);
    at::Tensor slope = above.matmul(own.v.transpose(1, 2));
    slope = own.weights * (slope - (own.weights * slope).sum(-1, true)) * scale.value();
    dv.narrow(0, first, length).copy_(own.weights.transpose(1, 2).matmul(above).transpose(0, 1));
    dq.narrow(0, first, length).copy_(slope.matmul(own.k).transpose(0, 1));
    dk.narrow(0, first, length).copy_(slope.transpose(1, 2).matmul(own.q).transpose(0, 1));
  });
  return {call.device(dq), call.device(dk), call.device(dv)};
}

// What CUDA has kernels for, and libtorch makes of several operations otherwise.
constexpr const char* kOwnKernels[] = {"_foreach_add_.Scalar", "_foreach_copy_",
                                       "_foreach_norm.Scalar", "native_layer_norm"};

std::string report;
}  // namespace

extern "C" {
// Call it before the first backward pass of the process: libtorch counts its devices then.
void docre_mock_gpu_install() {
  using torch::CppFunction;
  c10::impl::registerDeviceGuard(c10::DeviceType::CUDA, new MockGuard);
  at::CUDAHooksRegistry()->Register(
      "CUDAHooks", [](at::CUDAHooksArgs) { return std::make_unique<MockHooks>(); });
  auto boxed = [] { return CppFunction::makeFromBoxedFunction<&run_on_host>(); };
  // Libraries stay for as long as the process.
  auto library = [](const char* space, c10::DispatchKey key) {
    return new torch::Library(torch::Library::IMPL, space, key, __FILE__, __LINE__);
  };
  library("_", c10::DispatchKey::CUDA)->fallback(boxed());
  torch::Library* device = library("aten", c10::DispatchKey::CUDA);
  for (const char* name : kOwnKernels) device->impl(name, boxed());
  device->impl("copy_", copy);
  device->impl("mm.dtype", wide_product);
  device->impl("_flash_attention_forward", flash);
  device->impl("_flash_attention_backward", flash_backward);
  torch::Library* host = library("aten", c10::DispatchKey::CPU);
  host->impl("_pin_memory", pin);
  host->impl("is_pinned", says_pinned);
}

// Lines "KIND COUNT OPERATION" of what happened since the last call. The text lives until the next.
const char* docre_mock_gpu_take() {
  std::lock_guard<std::mutex> held(lock);
  report.clear();
  for (const auto& [key, number] : counts)
    report += key.first + " " + std::to_string(number) + " " + key.second + "\n";
  counts.clear();
  return report.c_str();
}
}
