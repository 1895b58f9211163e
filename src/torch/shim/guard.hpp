// The border to Rust: exceptions become a status and a message.
#pragma once
#include <c10/util/Exception.h>

#include <cstdlib>
#include <exception>
#include <string>

namespace docre {

inline std::string& last_error() {
  static thread_local std::string message;
  return message;
}

// Keeping a message needs memory, and memory may be what is missing.
inline void keep_error(const char* message) noexcept {
  try {
    last_error() = message;
  } catch (...) {
    last_error().clear();
  }
}

// The message without the frames of C++ that libtorch adds to it, unless its environment variable
// asks for them.
inline const char* message_of(const c10::Error& error) noexcept {
  return std::getenv("TORCH_SHOW_CPP_STACKTRACES") ? error.what() : error.what_without_backtrace();
}

// Runs the body of a function that Rust calls. No exception may leave such a function, so all of
// its work is done in here. If one escaped all the same, `noexcept` would end the program.
template <typename Body>
int guarded(const Body& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    keep_error(message_of(error));
  } catch (const std::exception& error) {
    keep_error(error.what());
  } catch (...) {
    keep_error("an exception of unknown type");
  }
  return -1;
}

}  // namespace docre
