// What an operator is called, what it takes and gives, and how a call of it is carried out.
#pragma once
#include <cstdint>
#include <vector>

#include "../ops.h"
#include "ort_abi.h"

namespace mblm::onnx {

class Call;

/// Types of elements; `work` is the type in the operator's suffix, `any` that of each input of a variadic one, which the operator looks at itself.
enum class Element { work, f32, f64, i32, u8, any };

/// In place of a shape: two dimensions of any size, or any number of them, which the operator looks at itself.
constexpr const char* ANY_MATRIX = "**";
constexpr const char* ANY_SHAPE = "*";

/// An input or output. Each letter of `shape` stands for a dimension: the same letter, the same size, everywhere in a call.
struct Port {
  const char* name;
  Element element;
  const char* shape;
  Characteristic characteristic = Characteristic::required;
};

/// An integer attribute of the node.
struct Attribute {
  const char* name;
  bool has_default = false;  // 0
};

constexpr int MAX_ATTRIBUTES = 2;

struct Definition {
  const char* name;
  bool has_work_type;
  std::vector<Attribute> attributes;  // ≤ MAX_ATTRIBUTES
  std::vector<Port> inputs;           // in the order of the pointers in the operator's struct; a variadic one is the last
  std::vector<Port> outputs;
  void (*run)(Call&);
};

/// All operators of the domain.
const std::vector<Definition>& definitions();

}  // namespace mblm::onnx
