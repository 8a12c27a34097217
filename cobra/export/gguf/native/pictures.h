// The C interface to pictures.gguf: pixels of a picture go in, its image tokens come out.
//
// A file holds the weights of an encoder and a projector, and under the key "cobra.program" a list of operations in
// JSON (cobra/export/gguf/program.py writes it). It need not be trusted: whatever does not fit is refused.
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define COBRA_API __declspec(dllexport)
#else
#define COBRA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cobra_pictures cobra_pictures;

// A program and its weights, in memory; NULL where the file is none, see cobra_pictures_error. Threads are at least 1,
// and no more than ggml can run.
COBRA_API cobra_pictures* cobra_pictures_open(const char* path, int32_t threads);

// Tensors of pixels that a picture is read from, one an encoder.
COBRA_API int32_t cobra_pictures_planes(const cobra_pictures* pictures);

// Shape (1, 3, H, W) of one of them.
COBRA_API void cobra_pictures_pixel_shape(const cobra_pictures* pictures, int32_t plane, int64_t shape[4]);

// Shape (M, D) of a picture's tokens.
COBRA_API void cobra_pictures_token_shape(const cobra_pictures* pictures, int64_t shape[2]);

// Pixels of each plane, row by row, to tokens (M, D); other than 0 where it failed. One thread at a time.
COBRA_API int32_t cobra_pictures_run(cobra_pictures* pictures, const float* const* planes, float* tokens);

// Let go of it; NULL is nothing to let go of.
COBRA_API void cobra_pictures_close(cobra_pictures* pictures);

// Values (3, side, side) of a picture's file, of JPEG, PNG or BMP, as an entry of settings.pixels in manifest.json
// says; other than 0 where it failed.
COBRA_API int32_t cobra_pixels_read(const char* entry, const char* path, float* values);

// Why the last call of this thread failed.
COBRA_API const char* cobra_pictures_error(void);

#ifdef __cplusplus
}
#endif
