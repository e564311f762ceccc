// One call of an operator: its arguments, checked.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "definition.h"

namespace mblm::onnx {

/// A call that cannot be carried out; the message names operator and argument.
class CallError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What an operator needs to know of its node.
struct Kernel {
  const OrtApi* api;
  const Definition* definition;
  const char* name;  // with the suffix
  DType type;
  int64_t attributes[MAX_ATTRIBUTES];
};

/// Throws the message of a status that is none of success.
void check(const OrtApi* api, OrtStatus* status);

/// Nothing is allocated unless the call fails.
class Call {
 public:
  /// Reads the inputs; throws CallError where a shape is not as defined.
  Call(const Kernel& kernel, OrtKernelContext* context);

  DType type() const { return kernel_.type; }
  int64_t attribute(int index) const { return kernel_.attributes[index]; }

  /// Size of a dimension, by its letter; 0 when only absent inputs have it.
  int64_t dim(char letter) const { return dims_[index_of(letter)] == UNKNOWN ? 0 : dims_[index_of(letter)]; }

  /// Gives a dimension that no input has.
  void set_dim(char letter, int64_t size) { dims_[index_of(letter)] = size; }

  /// Writes the addresses of the inputs, in order, those of absent ones as null. Not the variadic one.
  template <class... Pointers>
  void inputs(Pointers&... pointers) {
    size_t index = 0;
    ((pointers = static_cast<Pointers>(input(index++))), ...);
  }

  /// Allocates the outputs with their shapes; writes their addresses, in order.
  template <class... Pointers>
  void outputs(Pointers&... pointers) {
    size_t index = 0;
    ((pointers = static_cast<Pointers>(output(index++))), ...);
  }

  /// Number of inputs that the node gives for the variadic one, and the address of each.
  int64_t num_variadic() const;
  void* variadic(int64_t index) { return input(kernel_.definition->inputs.size() - 1 + index); }

  /// Whether number `index` of the variadic inputs has this type and shape.
  bool is_tensor(int64_t index, DType type, std::initializer_list<int64_t> shape) const;

  /// Shape of number `index` of the variadic inputs; null when it has another rank.
  const int64_t* variadic_shape(int64_t index, size_t rank) const;

  /// Throws unless the condition holds; `what` says it in terms of the letters.
  void require(bool condition, const char* input, const char* what) const;

  /// T of M = R·T.
  int64_t steps() const;

  /// Throws unless 0 ≤ value < limit for each of `count` values. On a device values cannot be looked at: nothing is checked there.
  void require_below(int64_t limit, const char* input, const int32_t* values, int64_t count) const;

  /// The stream of a device.
  Stream stream() const;

 private:
  static constexpr int64_t UNKNOWN = -1;
  static int index_of(char letter) { return letter - 'A'; }

  const OrtValue* value(size_t index) const;
  const Port& port_of(size_t index) const;
  void bind(size_t index);
  [[noreturn]] void fail(const std::string& what) const;
  void* input(size_t index);
  void* output(size_t index);

  const Kernel& kernel_;
  OrtKernelContext* context_;
  size_t num_inputs_ = 0;
  int64_t dims_['z' - 'A' + 1];
};

}  // namespace mblm::onnx
