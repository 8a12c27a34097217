// A conversation with lm.gguf: pictures are read once, and every question only what is new.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "export_folder.h"
#include "llama.h"

namespace cobra {

// Image tokens (M, D) of a picture, row by row.
struct Picture {
  int64_t tokens = 0, width = 0;
  std::vector<float> values;
};

// Seconds and tokens, as Imp's and MobileVLM's tables count them: the first of an answer comes with its prompt.
struct Spent {
  double seeing = 0, reading = 0, writing = 0;
  int64_t read = 0, written = 0;
};

// Text whose outer spaces and unfinished characters are held back.
class TextStream {
 public:
  // What is certain now and was not before.
  std::string add(const std::string& bytes, bool is_last = false);

 private:
  std::string held_;
  bool is_started_ = false;
};

class Conversation {
 public:
  // Refused where the language model or its vocabulary cannot be read.
  Conversation(const Export& said, int threads, int most_new_tokens);

  // The answer in pieces of text, greedily; a picture is shown with the first question alone.
  void ask(const std::string& question, const Picture* picture, const std::function<void(const std::string&)>& say);
  const Spent& spent() const { return spent_; }

 private:
  // To the logits behind the last: of token ids, of embeddings, of a turn with what was said before it.
  void read(const std::vector<llama_token>& ids);
  void read(const Picture& picture);
  void read(const Turn& turn, const std::string& question, const Picture* picture);
  void decode(const llama_batch& batch);
  std::vector<llama_token> cut(const Piece& piece, const std::string& question) const;
  llama_token likeliest() const;
  std::string text_of(llama_token token) const;

  struct Free {
    void operator()(llama_model* model) const { llama_model_free(model); }
    void operator()(llama_context* context) const { llama_free(context); }
  };

  const Export& said_;
  int most_new_tokens_;
  // freed after the context
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<llama_context, Free> context_;
  const llama_vocab* vocabulary_ = nullptr;
  // ids that the tokenizer has not: of rows that fill a vocabulary up
  std::vector<bool> is_unknown_;
  // said, but not read yet: the end of the last answer
  std::vector<llama_token> unread_;
  bool is_first_ = true;
  Spent spent_;
};

// Seconds of a clock that only goes on.
double seconds();

}  // namespace cobra
