// Stores and groups of c10d, libtorch's library for several processes: a store is a table of keys
// that all processes see, a group (Gloo's, over TCP) carries collectives.
#include <ATen/ops/from_blob.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdlib>

#include "guard.hpp"

C10_DECLARE_int(caffe2_log_level);

namespace {
using docre::guarded;
using std::chrono::milliseconds;

// Only errors, as all that can be done about a warning of a connection is said in Rust.
void silence_warnings() {
  constexpr int kErrors = 2;
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = kErrors;
}

struct KeyStore {
  c10::intrusive_ptr<c10d::TCPStore> tcp;
  c10::intrusive_ptr<c10d::Store> keys;  // the same, with a prefix
};

struct GlooGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
};

// Memory of the caller as a tensor, for the time of one call.
at::Tensor view(void* data, int64_t count, at::ScalarType kind) {
  return at::from_blob(data, {count}, at::TensorOptions().dtype(kind));
}

std::vector<uint8_t> bytes_of(const uint8_t* data, size_t count) {
  return std::vector<uint8_t>(data, data + count);
}
}  // namespace

extern "C" {
// Opens a store. `listener` is a socket that listens, which the store takes over and serves, or -1
// to use the store at `host` and `port`.
int docre_store_new(const char* host, uint16_t port, int listener, const char* prefix,
                    int64_t timeout_ms, KeyStore** out) {
  return guarded([&] {
    silence_warnings();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    if (listener >= 0) options.masterListenFd = listener;
    auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
    auto keys = c10::make_intrusive<c10d::PrefixStore>(prefix, tcp);
    *out = new KeyStore{std::move(tcp), std::move(keys)};
  });
}
void docre_store_free(KeyStore* store) { delete store; }
int docre_store_set(KeyStore* store, const char* key, const uint8_t* data, size_t count) {
  return guarded([&] { store->keys->set(key, bytes_of(data, count)); });
}
// Adds to a counter; the new value goes to `sum`.
int docre_store_add(KeyStore* store, const char* key, int64_t value, int64_t* sum) {
  return guarded([&] { *sum = store->keys->add(key, value); });
}
int docre_store_has(KeyStore* store, const char* key, int* found) {
  return guarded([&] { *found = store->keys->check({key}) ? 1 : 0; });
}
// Waits for a key, and hands its bytes to `take`.
int docre_store_get(KeyStore* store, const char* key, int64_t timeout_ms,
                    void (*take)(void*, const uint8_t*, size_t), void* taker) {
  return guarded([&] {
    store->keys->wait({key}, milliseconds(timeout_ms));
    auto value = store->keys->get(key);
    take(taker, value.data(), value.size());
  });
}

// Connects a group of `size` processes over the interface that has `address`, or over those that
// GLOO_SOCKET_IFNAME names. `connect_ms` bounds that, `timeout_ms` every later operation.
int docre_group_new(KeyStore* store, const char* name, int rank, int size, const char* address,
                    int64_t connect_ms, int64_t timeout_ms, GlooGroup** out) {
  return guarded([&] {
    auto connect = milliseconds(connect_ms);
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    auto options =
        interface && *interface ? c10d::ProcessGroupGloo::Options::create_default(connect)
                                : c10d::ProcessGroupGloo::Options::create(connect);
    options->timeout = connect;
    options->threads = 1;
    if (options->devices.empty())
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    auto keys = c10::make_intrusive<c10d::PrefixStore>(name, store->keys);
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(keys, rank, size, options);
    backend->setTimeout(milliseconds(timeout_ms));
    *out = new GlooGroup{std::move(backend)};
  });
}
void docre_group_free(GlooGroup* group) { delete group; }
// Sums `count` numbers over all processes, in place: doubles if `wide`, else floats.
int docre_group_sum(GlooGroup* group, void* data, int64_t count, int wide) {
  return guarded([&] {
    std::vector<at::Tensor> numbers{view(data, count, wide ? at::kDouble : at::kFloat)};
    group->backend->allreduce(numbers)->wait();
  });
}
int docre_group_barrier(GlooGroup* group) {
  return guarded([&] { group->backend->barrier()->wait(); });
}
int docre_group_broadcast(GlooGroup* group, uint8_t* data, int64_t count, int root) {
  return guarded([&] {
    std::vector<at::Tensor> bytes{view(data, count, at::kByte)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->backend->broadcast(bytes, options)->wait();
  });
}
// Gathers `count` bytes of every process into `all`, by rank.
int docre_group_gather(GlooGroup* group, const uint8_t* own, int64_t count, uint8_t* all) {
  return guarded([&] {
    auto from = view(const_cast<uint8_t*>(own), count, at::kByte);
    auto to = view(all, count * group->backend->getSize(), at::kByte);
    group->backend->_allgather_base(to, from)->wait();
  });
}
}
