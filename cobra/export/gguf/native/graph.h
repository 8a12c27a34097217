// ggml's tensors of a picture's program.
#pragma once

#include <stdint.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "ggml.h"
#include "json.h"

namespace cobra {

// as torch counts axes, rows first
using Shape = std::vector<int64_t>;

// The operations of a program, each laid out row by row as torch has it.
//
// ggml ends the process where sizes do not fit, so each is looked at before ggml sees it.
class Graph {
 public:
  // Tensors without memory; the program's weights lie in `weights`, which stays.
  Graph(const Json& program, ggml_context* weights);
  ~Graph() { ggml_free(context_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  struct Value {
    ggml_tensor* tensor;
    Shape shape;
  };
  const std::vector<Value>& pixels() const { return pixels_; }
  const Value& tokens() const { return tokens_; }
  ggml_cgraph* graph() const { return graph_; }

 private:
  struct Operation {
    std::string kind, name;
    std::vector<Value> inputs;
    Shape shape;
    const Json& settings;
  };

  void weight(const std::string& name, const Json& said, ggml_context* weights);
  Value made(const Json& said);
  ggml_tensor* made_by_kind(const Operation& o);

  ggml_tensor* linear(const Operation& o);
  ggml_tensor* conv(const Operation& o);
  ggml_tensor* group_norm(const Operation& o);
  ggml_tensor* layer_norm(const Operation& o);
  ggml_tensor* rms_norm(const Operation& o);
  ggml_tensor* attention(const Operation& o);
  ggml_tensor* both(const Operation& o);
  ggml_tensor* permute(const Operation& o);
  ggml_tensor* slice(const Operation& o);
  ggml_tensor* flip(const Operation& o);
  ggml_tensor* concat(const Operation& o);
  ggml_tensor* mean(const Operation& o);
  ggml_tensor* ssm_conv(const Operation& o);
  ggml_tensor* ssm_scan(const Operation& o);

  // As it lies in memory; all but a linear's matrix are fp32.
  ggml_tensor* flat(const Value& x);
  // With its axes, those of size 1 before the last four left out, or with others, four at most.
  ggml_tensor* view(const Value& x);
  ggml_tensor* view(const Value& x, Shape shape);
  ggml_tensor* rows(const Value& x);
  // A value a channel, for maps (1, C, H, W).
  ggml_tensor* channels(const Value& x, int64_t number);
  // 0, 1, ... (number); fp32 counts to 2^24.
  ggml_tensor* numbers(int64_t number);

  ggml_context* context_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  std::unordered_map<std::string, Value> made_;
  std::vector<Value> pixels_;
  Value tokens_{};
};

// The product of sizes; refused where one is not positive or they are too many together.
int64_t count(const Shape& shape);

}  // namespace cobra
