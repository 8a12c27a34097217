#include "pictures.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gguf.h"
#include "graph.h"
#include "pixels.h"

namespace cobra {
namespace {

constexpr const char* kProgram = "cobra.program";

thread_local std::string last_error;

struct Free {
  void operator()(gguf_context* file) const { gguf_free(file); }
  void operator()(ggml_context* context) const { ggml_free(context); }
  void operator()(ggml_backend* backend) const { ggml_backend_free(backend); }
  void operator()(ggml_gallocr* memory) const { ggml_gallocr_free(memory); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

// The program of a file whose weights are all there: ggml makes room for as many as a file says, and would end here.
Json program_of(const char* path) {
  const Owned<gguf_context> file(gguf_init_from_file(path, {true, nullptr}));
  if (!file) throw Refused("it is no GGUF file, or a damaged one");
  const int64_t key = gguf_find_key(file.get(), kProgram);
  if (key < 0 || gguf_get_kv_type(file.get(), key) != GGUF_TYPE_STRING) throw Refused("it holds no picture's program");
  std::ifstream opened(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = opened.tellg();
  if (const int64_t tensors = gguf_get_n_tensors(file.get())) {
    const size_t end = gguf_get_data_offset(file.get()) + gguf_get_tensor_offset(file.get(), tensors - 1) +
                       gguf_get_tensor_size(file.get(), tensors - 1);
    if (size < 0 || uint64_t(size) < end) throw Refused("it is cut short");
  }
  return Json::parse(gguf_get_val_str(file.get(), key));
}

}  // namespace
}  // namespace cobra

struct cobra_pictures {
  cobra_pictures(const char* path, int32_t threads) : program(cobra::program_of(path)) {
    ggml_context* context = nullptr;
    file.reset(gguf_init_from_file(path, {false, &context}));
    weights.reset(context);
    if (!file || !context) throw cobra::Refused("its weights cannot be read");
    backend.reset(ggml_backend_cpu_init());
    if (!backend) throw cobra::Refused("there is no memory for it");
    // ggml ends the process at more
    ggml_backend_cpu_set_n_threads(backend.get(), std::clamp(threads, 1, GGML_MAX_N_THREADS));
    // shapes, and whether it can be run at all
    const cobra::Graph graph(program, weights.get());
    for (const auto& plane : graph.pixels()) pixels.push_back(plane.shape);
    tokens = graph.tokens().shape;
  }

  void run(const float* const* planes, float* made) {
    const cobra::Graph graph(program, weights.get());
    const cobra::Owned<ggml_gallocr> memory(ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend.get())));
    if (!ggml_gallocr_alloc_graph(memory.get(), graph.graph()))
      throw cobra::Refused("there is no memory for the picture");
    for (size_t plane = 0; plane < pixels.size(); ++plane) {
      ggml_tensor* tensor = graph.pixels()[plane].tensor;
      // none where the program does not look at it
      if (tensor->buffer) ggml_backend_tensor_set(tensor, planes[plane], 0, ggml_nbytes(tensor));
    }
    if (ggml_backend_graph_compute(backend.get(), graph.graph()) != GGML_STATUS_SUCCESS)
      throw cobra::Refused("ggml could not run it");
    ggml_backend_tensor_get(graph.tokens().tensor, made, 0, ggml_nbytes(graph.tokens().tensor));
    // a language model that rounds them to 8 bits would make numbers of them
    if (!std::all_of(made, made + cobra::count(tokens), [](float value) { return std::isfinite(value); }))
      throw cobra::Refused("the picture's tokens are no numbers: export the model again");
  }

  cobra::Json program;
  cobra::Owned<gguf_context> file;
  cobra::Owned<ggml_context> weights;
  cobra::Owned<ggml_backend> backend;
  std::vector<cobra::Shape> pixels;
  cobra::Shape tokens;
};

cobra_pictures* cobra_pictures_open(const char* path, int32_t threads) {
  try {
    return new cobra_pictures(path, threads);
  } catch (const std::exception& error) {
    cobra::last_error = std::string(path) + ": " + error.what() + ": export the model again";
    return nullptr;
  }
}

int32_t cobra_pictures_planes(const cobra_pictures* pictures) { return int32_t(pictures->pixels.size()); }

void cobra_pictures_pixel_shape(const cobra_pictures* pictures, int32_t plane, int64_t shape[4]) {
  for (size_t axis = 0; axis < 4; ++axis) shape[axis] = pictures->pixels[size_t(plane)][axis];
}

void cobra_pictures_token_shape(const cobra_pictures* pictures, int64_t shape[2]) {
  for (size_t axis = 0; axis < 2; ++axis) shape[axis] = pictures->tokens[axis];
}

int32_t cobra_pictures_run(cobra_pictures* pictures, const float* const* planes, float* tokens) {
  try {
    pictures->run(planes, tokens);
    return 0;
  } catch (const std::exception& error) {
    cobra::last_error = error.what();
    return 1;
  }
}

void cobra_pictures_close(cobra_pictures* pictures) { delete pictures; }

int32_t cobra_pixels_read(const char* entry, const char* path, float* values) {
  try {
    const cobra::Plane plane(cobra::Json::parse(entry));
    const std::vector<float> made = plane.normalized(plane.square(cobra::read_picture(path)));
    std::copy(made.begin(), made.end(), values);
    return 0;
  } catch (const std::exception& error) {
    cobra::last_error = error.what();
    return 1;
  }
}

const char* cobra_pictures_error(void) { return cobra::last_error.c_str(); }
