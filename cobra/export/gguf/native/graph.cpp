#include "graph.h"

#include <cmath>
#include <utility>

namespace cobra {
namespace {

// of what one operation makes, its inner steps included: a gigabyte
constexpr int64_t kMost = int64_t(1) << 28;
constexpr size_t kOperations = 1 << 15, kInputs = 64, kAxes = 8;
// tensors of ggml's for one operation, and for one of its inputs
constexpr size_t kTensors = 16, kTensorsOfInput = 2;
// strides, padding
constexpr int64_t kStep = 1024;
// whole numbers up to which fp32 holds all
constexpr int64_t kCounted = int64_t(1) << 24;

Shape shape_of(const Json& said) {
  check(said.is_array() && said.size() <= kAxes, "a shape is no list of at most 8 numbers");
  Shape shape;
  for (const Json& size : said) {
    check(size.is_number_integer(), "a shape holds what is no whole number");
    shape.push_back(size.get<int64_t>());
  }
  count(shape);
  return shape;
}

// Sizes before an axis, of it and behind it.
struct Around {
  int64_t outer, size, inner;
};

Around around(const Shape& shape, size_t axis) {
  check(axis < shape.size(), "an axis is not there");
  const auto begin = shape.begin();
  return {count(Shape(begin, begin + axis)), shape[axis], count(Shape(begin + axis + 1, shape.end()))};
}

float eps(const Json& settings) {
  const float value = settings.at("eps").get<float>();
  check(std::isfinite(value) && value >= 0, "its eps is negative or not finite");
  return value;
}

bool is_matrix_type(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q6_K:
      return true;
    default:
      return false;
  }
}

using Unary = ggml_tensor* (*)(ggml_context*, ggml_tensor*);
const std::unordered_map<std::string, Unary> kUnary = {
    {"relu", ggml_relu},       {"gelu", ggml_gelu_erf},       {"gelu_tanh", ggml_gelu},          {"silu", ggml_silu},
    {"sigmoid", ggml_sigmoid}, {"hardswish", ggml_hardswish}, {"hardsigmoid", ggml_hardsigmoid}, {"exp", ggml_exp},
    {"neg", ggml_neg},
};

}  // namespace

int64_t count(const Shape& shape) {
  int64_t all = 1;
  for (const int64_t size : shape) {
    check(size > 0 && size <= kMost / all, "a tensor is empty or of more than 2^28 numbers");
    all *= size;
  }
  return all;
}

Graph::Graph(const Json& program, ggml_context* weights) {
  const Json &operations = program.at("operations"), &planes = program.at("pixels");
  check(operations.is_array() && !operations.empty() && operations.size() <= kOperations,
        "operations are none or too many");
  check(planes.is_object() && !planes.empty() && planes.size() <= kInputs, "pixels are none or too many");
  size_t tensors = planes.size();
  for (const Json& said : operations) {
    const size_t inputs = said.at("inputs").size();
    check(inputs <= kInputs, "an operation has more than 64 inputs");
    tensors += kTensors + kTensorsOfInput * inputs;
  }
  context_ = ggml_init({tensors * ggml_tensor_overhead() + ggml_graph_overhead_custom(tensors, false), nullptr, true});
  check(context_ != nullptr, "there is no memory for it");
  try {
    for (const auto& [name, said] : planes.items()) {
      const Shape shape = shape_of(said);
      check(shape.size() == 4 && shape[0] == 1 && shape[1] == 3, "pixels are not of (1, 3, H, W)");
      pixels_.push_back({ggml_new_tensor_1d(context_, GGML_TYPE_F32, count(shape)), shape});
      ggml_set_input(pixels_.back().tensor);
      made_[name] = pixels_.back();
    }
    for (const auto& [name, said] : program.at("weights").items()) weight(name, said, weights);
    for (const Json& said : operations) made_[said.at("name")] = tokens_ = made(said);
    check(tokens_.shape.size() == 2 && tokens_.tensor->op != GGML_OP_NONE, "it makes no list of tokens (M, D)");
    ggml_set_output(tokens_.tensor);
    graph_ = ggml_new_graph_custom(context_, tensors, false);
    ggml_build_forward_expand(graph_, tokens_.tensor);
  } catch (...) {
    ggml_free(context_);
    throw;
  }
}

void Graph::weight(const std::string& name, const Json& said, ggml_context* weights) {
  ggml_tensor* tensor = ggml_get_tensor(weights, said.at(0).get_ref<const std::string&>().c_str());
  const Shape shape = shape_of(said.at(1));
  check(tensor != nullptr, "weight " + name + " is not there");
  // rows of a matrix may be padded
  const bool is_padded = shape.size() == 2 && tensor->ne[0] > shape[1] && ggml_nrows(tensor) == shape[0];
  check(is_padded || ggml_nelements(tensor) == count(shape), "weight " + name + " is not of its shape");
  made_[name] = {tensor, shape};
}

Graph::Value Graph::made(const Json& said) {
  Operation o{said.at("kind"), said.at("name"), {}, shape_of(said.at("shape")), said.at("settings")};
  for (const Json& input : said.at("inputs")) {
    const auto found = made_.find(input.get_ref<const std::string&>());
    check(found != made_.end(), o.name + " is made of what is not there");
    o.inputs.push_back(found->second);
  }
  try {
    ggml_tensor* tensor = made_by_kind(o);
    check(ggml_nelements(tensor) == count(o.shape), "what it makes is not of its shape");
    return {tensor, o.shape};
  } catch (const std::exception& error) {
    throw Refused(o.name + " (" + o.kind + "): " + error.what());
  }
}

ggml_tensor* Graph::made_by_kind(const Operation& o) {
  const auto needs = [&](size_t least, size_t most) {
    check(least <= o.inputs.size() && o.inputs.size() <= most, "it has too few inputs or too many");
  };
  if (o.kind == "concat") return needs(2, kInputs), concat(o);
  if (o.kind == "linear") return needs(2, 3), linear(o);
  if (o.kind == "conv") return needs(2, 3), conv(o);
  if (o.kind == "group_norm") return needs(3, 3), group_norm(o);
  if (o.kind == "layer_norm") return needs(3, 3), layer_norm(o);
  if (o.kind == "attention") return needs(3, 3), attention(o);
  if (o.kind == "ssm_conv") return needs(2, 2), ssm_conv(o);
  if (o.kind == "ssm_scan") return needs(5, 5), ssm_scan(o);
  if (o.kind == "add" || o.kind == "mul") return needs(2, 2), both(o);
  needs(1, 1);
  if (o.kind == "permute") return permute(o);
  if (o.kind == "slice") return slice(o);
  if (o.kind == "flip") return flip(o);
  if (o.kind == "rms_norm") return rms_norm(o);
  if (o.kind == "mean") return mean(o);
  if (o.kind == "reshape") return flat(o.inputs[0]);
  if (o.kind == "scale") return ggml_scale(context_, flat(o.inputs[0]), o.settings.at("by").get<float>());
  const auto unary = kUnary.find(o.kind);
  check(unary != kUnary.end(), "it is of a kind that this build does not know");
  return unary->second(context_, flat(o.inputs[0]));
}

ggml_tensor* Graph::linear(const Operation& o) {
  ggml_tensor *x = rows(o.inputs[0]), *weight = o.inputs[1].tensor;
  check(is_matrix_type(weight->type), std::string("its matrix is of type ") + ggml_type_name(weight->type));
  check(o.inputs[1].shape.size() == 2 && o.inputs[1].shape[1] == x->ne[0], "its matrix does not fit its input");
  const int64_t width = weight->ne[0], height = ggml_nrows(weight);
  check(height == o.inputs[1].shape[0], "its matrix is not of its shape");
  count({x->ne[1], width});
  count({x->ne[1], height});
  // quantised rows come in blocks, which zeros fill
  if (width > x->ne[0]) x = ggml_pad(context_, x, int(width - x->ne[0]), 0, 0, 0);
  ggml_tensor* made = ggml_mul_mat(context_, ggml_reshape_2d(context_, weight, width, height), x);
  return o.inputs.size() < 3 ? made : ggml_add(context_, made, view(o.inputs[2], {height}));
}

ggml_tensor* Graph::conv(const Operation& o) {
  const Shape &x = o.inputs[0].shape, &kernel = o.inputs[1].shape;
  check(x.size() == 4 && x[0] == 1 && kernel.size() == 4 && o.shape.size() == 4, "it is not of maps (1, C, H, W)");
  int steps[2], bars[2];
  int64_t sizes[2];
  for (size_t axis = 0; axis < 2; ++axis) {
    steps[axis] = int(whole(o.settings.at("stride").at(axis), 1, kStep));
    bars[axis] = int(whole(o.settings.at("padding").at(axis), 0, kStep));
    const int64_t room = x[2 + axis] + 2 * bars[axis] - kernel[2 + axis];
    check(room >= 0, "its kernel is larger than its input");
    sizes[axis] = room / steps[axis] + 1;
    check(sizes[axis] == o.shape[2 + axis], "what it makes is not of its shape");
  }
  ggml_tensor* made = nullptr;
  if (o.settings.at("depthwise").get<bool>()) {
    check(kernel[0] == x[1] && kernel[1] == 1, "its kernel does not fit its input");
    made = ggml_conv_2d_dw_direct(context_, view(o.inputs[1]), view(o.inputs[0]), steps[1], steps[0], bars[1], bars[0],
                                  1, 1);
  } else {
    check(kernel[1] == x[1], "its kernel does not fit its input");
    const int64_t places = count({sizes[0], sizes[1]}), patch = count({kernel[1], kernel[2], kernel[3]});
    count({places, patch});
    count({places, kernel[0]});
    // not ggml_conv_2d, which rounds what it gathers to fp16
    ggml_tensor* gathered = ggml_im2col(context_, view(o.inputs[1]), view(o.inputs[0]), steps[1], steps[0], bars[1],
                                        bars[0], 1, 1, true, GGML_TYPE_F32);
    gathered = ggml_reshape_2d(context_, gathered, patch, places);
    made = ggml_mul_mat(context_, gathered, view(o.inputs[1], {kernel[0], patch}));
    made = ggml_reshape_4d(context_, made, sizes[1], sizes[0], kernel[0], 1);
  }
  return o.inputs.size() < 3 ? made : ggml_add(context_, made, channels(o.inputs[2], kernel[0]));
}

ggml_tensor* Graph::group_norm(const Operation& o) {
  const Shape& x = o.inputs[0].shape;
  check(x.size() == 4 && x[0] == 1, "it is not of maps (1, C, H, W)");
  const int64_t groups = whole(o.settings.at("groups"), 1, x[1]);
  check(x[1] % groups == 0, "its groups do not share its channels");
  ggml_tensor* made = ggml_group_norm(context_, view(o.inputs[0]), int(groups), eps(o.settings));
  made = ggml_mul(context_, made, channels(o.inputs[1], x[1]));
  return ggml_add(context_, made, channels(o.inputs[2], x[1]));
}

ggml_tensor* Graph::layer_norm(const Operation& o) {
  ggml_tensor* x = rows(o.inputs[0]);
  ggml_tensor* made = ggml_norm(context_, x, eps(o.settings));
  made = ggml_mul(context_, made, view(o.inputs[1], {x->ne[0]}));
  return ggml_add(context_, made, view(o.inputs[2], {x->ne[0]}));
}

ggml_tensor* Graph::rms_norm(const Operation& o) { return ggml_rms_norm(context_, rows(o.inputs[0]), eps(o.settings)); }

ggml_tensor* Graph::attention(const Operation& o) {
  ggml_tensor *q = view(o.inputs[0]), *k = view(o.inputs[1]), *v = view(o.inputs[2]);
  check(k->ne[0] == q->ne[0] && v->ne[1] == k->ne[1], "its keys fit neither queries nor values");
  for (int axis = 2; axis < 4; ++axis)
    check(q->ne[axis] == k->ne[axis] && k->ne[axis] == v->ne[axis], "its heads are not as many");
  count({q->ne[3], q->ne[2], q->ne[1], k->ne[1]});
  count({q->ne[3], q->ne[2], q->ne[1], v->ne[0]});
  ggml_tensor* shares = ggml_mul_mat(context_, k, q);
  shares = ggml_soft_max_ext(context_, shares, nullptr, o.settings.at("scale").get<float>(), 0.0f);
  ggml_tensor* turned = ggml_cont(context_, ggml_permute(context_, v, 1, 0, 2, 3));
  return ggml_mul_mat(context_, turned, shares);
}

ggml_tensor* Graph::both(const Operation& o) {
  const Json& sizes = o.settings.at("sizes");
  ggml_tensor *first = view(o.inputs[0], shape_of(sizes.at(0))), *second = view(o.inputs[1], shape_of(sizes.at(1)));
  if (ggml_nelements(first) < ggml_nelements(second)) std::swap(first, second);
  check(ggml_can_repeat(second, first), "its inputs do not fit each other");
  return o.kind == "add" ? ggml_add(context_, first, second) : ggml_mul(context_, first, second);
}

ggml_tensor* Graph::permute(const Operation& o) {
  const Json& order = o.settings.at("order");
  check(order.size() == 4, "it is not of four axes");
  // where each axis goes, as ggml counts them: from the last
  int goes[4] = {-1, -1, -1, -1};
  for (int place = 0; place < 4; ++place) {
    int& axis = goes[3 - whole(order.at(size_t(place)), 0, 3)];
    check(axis < 0, "it names an axis twice");
    axis = 3 - place;
  }
  ggml_tensor* x = view(o.inputs[0], shape_of(o.settings.at("sizes")));
  return ggml_cont(context_, ggml_permute(context_, x, goes[0], goes[1], goes[2], goes[3]));
}

ggml_tensor* Graph::slice(const Operation& o) {
  const Around x = around(o.inputs[0].shape, size_t(whole(o.settings.at("axis"), 0, kAxes)));
  const int64_t start = whole(o.settings.at("start"), 0, x.size - 1);
  const int64_t length = whole(o.settings.at("length"), 1, x.size - start);
  const size_t bytes = sizeof(float) * size_t(x.inner);
  return ggml_cont(context_, ggml_view_3d(context_, flat(o.inputs[0]), x.inner, length, x.outer, bytes,
                                          bytes * size_t(x.size), bytes * size_t(start)));
}

ggml_tensor* Graph::flip(const Operation& o) {
  const Around x = around(o.inputs[0].shape, size_t(whole(o.settings.at("axis"), 0, kAxes)));
  check(x.outer == 1, "it reverses an axis that is not the first");
  ggml_tensor* from_end = ggml_scale_bias(context_, numbers(x.size), -1.0f, float(x.size - 1));
  return ggml_get_rows(context_, view(o.inputs[0], {x.size, x.inner}), ggml_cast(context_, from_end, GGML_TYPE_I32));
}

ggml_tensor* Graph::concat(const Operation& o) {
  const size_t axis = size_t(whole(o.settings.at("axis"), 0, kAxes));
  ggml_tensor* made = nullptr;
  for (const Value& input : o.inputs) {
    const Around x = around(input.shape, axis);
    ggml_tensor* next = view(input, {x.outer, x.size, x.inner});
    check(!made || (made->ne[0] == x.inner && made->ne[2] == x.outer), "its inputs do not fit each other");
    if (made) count({x.outer, made->ne[1] + x.size, x.inner});
    made = made ? ggml_concat(context_, made, next, 1) : next;
  }
  return made;
}

ggml_tensor* Graph::mean(const Operation& o) {
  const Shape& x = o.inputs[0].shape;
  const auto middle = x.end() - whole(o.settings.at("axes"), 1, int64_t(x.size()));
  return ggml_mean(context_, view(o.inputs[0], {count(Shape(x.begin(), middle)), count(Shape(middle, x.end()))}));
}

ggml_tensor* Graph::flat(const Value& x) {
  check(x.tensor->type == GGML_TYPE_F32 && ggml_nelements(x.tensor) == count(x.shape),
        "a weight that is no matrix is not fp32");
  return x.tensor;
}

ggml_tensor* Graph::view(const Value& x) {
  Shape shape = x.shape;
  while (shape.size() > 4 && shape[0] == 1) shape.erase(shape.begin());
  return view(x, shape);
}

ggml_tensor* Graph::view(const Value& x, Shape shape) {
  check(shape.size() <= 4 && count(shape) == count(x.shape), "an input is not of the shape that it takes");
  shape.insert(shape.begin(), 4 - shape.size(), 1);
  return ggml_reshape_4d(context_, flat(x), shape[3], shape[2], shape[1], shape[0]);
}

ggml_tensor* Graph::rows(const Value& x) {
  check(!x.shape.empty(), "an input has no axes");
  return view(x, {count(Shape(x.shape.begin(), x.shape.end() - 1)), x.shape.back()});
}

ggml_tensor* Graph::channels(const Value& x, int64_t number) { return view(x, {number, 1, 1}); }

ggml_tensor* Graph::numbers(int64_t number) {
  check(number <= kCounted, "an axis is longer than 2^24");
  return ggml_arange(context_, 0.0f, float(number), 1.0f);
}

}  // namespace cobra
