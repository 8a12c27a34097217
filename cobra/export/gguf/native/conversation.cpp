#include "conversation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace cobra {
namespace {

// as in cobra/export/gguf/context.py, so that tokens are the same
constexpr int kPiece = 256;
// tokens that a transformer has room for
constexpr uint32_t kRoom = 4096;
constexpr const char* kSpaces = " \t\n\v\f\r";

llama_model* opened(const std::string& path) {
  llama_model_params settings = llama_model_default_params();
  // else matrices are in memory twice: as they are in the file, and laid out anew for products
  settings.use_extra_bufts = false;
  // turns hold the spaces that SentencePiece puts before a text
  llama_model_kv_override changes[2] = {};
  changes[0].tag = LLAMA_KV_OVERRIDE_TYPE_BOOL;
  std::strcpy(changes[0].key, "tokenizer.ggml.add_space_prefix");
  changes[0].val_bool = false;
  settings.kv_overrides = changes;
  llama_model* model = llama_model_load_from_file(path.c_str(), settings);
  check(model != nullptr, path + " cannot be opened: export the model again");
  return model;
}

llama_context_params settings_of(int threads, bool is_exact) {
  llama_context_params settings = llama_context_default_params();
  settings.n_ctx = kRoom;
  settings.n_seq_max = settings.n_outputs_max = 1;
  settings.n_batch = settings.n_ubatch = kPiece;
  settings.n_threads = settings.n_threads_batch = threads;
  // on CPUs the slower way for long contexts
  settings.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  if (is_exact) settings.type_k = settings.type_v = GGML_TYPE_F32;
  return settings;
}

// Bytes of whole characters of UTF-8, from the beginning.
size_t whole_characters(const std::string& text) {
  size_t start = text.size();
  while (start > 0 && text.size() - start < 4) {
    const unsigned char byte = static_cast<unsigned char>(text[--start]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t length = byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    return start + length <= text.size() ? text.size() : start;
  }
  return text.size();
}

}  // namespace

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string TextStream::add(const std::string& bytes, bool is_last) {
  held_ += bytes;
  if (!is_started_) held_.erase(0, std::min(held_.find_first_not_of(kSpaces), held_.size()));
  const size_t whole = is_last ? held_.size() : whole_characters(held_);
  // npos + 1 is 0
  const size_t end = held_.substr(0, whole).find_last_not_of(kSpaces) + 1;
  const std::string shown = held_.substr(0, end);
  held_.erase(0, end);
  is_started_ = is_started_ || !shown.empty();
  return shown;
}

Conversation::Conversation(const Export& said, int threads, int most_new_tokens)
    : said_(said), most_new_tokens_(most_new_tokens), model_(opened(said.file("lm.gguf"))) {
  vocabulary_ = llama_model_get_vocab(model_.get());
  check(llama_vocab_type(vocabulary_) != LLAMA_VOCAB_TYPE_NONE,
        said.file("lm.gguf") + " has no tokenizer that llama.cpp knows");
  context_.reset(llama_init_from_model(model_.get(), settings_of(threads, said.is_exact)));
  check(context_ != nullptr, "there is no memory for " + std::to_string(kRoom) + " tokens");
  for (llama_token id = 0; id < llama_vocab_n_tokens(vocabulary_); ++id)
    is_unknown_.push_back(llama_vocab_get_attr(vocabulary_, id) & LLAMA_TOKEN_ATTR_UNUSED);
}

void Conversation::ask(const std::string& question, const Picture* picture,
                       const std::function<void(const std::string&)>& say) {
  const double start = seconds();
  read(!is_first_ ? said_.later : picture ? said_.picture : said_.first, question, picture);
  is_first_ = false;
  const double begun = seconds();
  spent_.reading += begun - start;
  TextStream text;
  for (int number = 1;; ++number) {
    const llama_token token = likeliest();
    const bool is_end = token == said_.eos_id, is_last = is_end || number == most_new_tokens_;
    say(text.add(text_of(token), is_last));
    if (is_last) {
      unread_ = is_end ? std::vector<llama_token>{token} : std::vector<llama_token>{token, said_.eos_id};
      break;
    }
    read(std::vector<llama_token>{token});
    ++spent_.written;
  }
  spent_.writing += seconds() - begun;
}

void Conversation::read(const Turn& turn, const std::string& question, const Picture* picture) {
  std::vector<llama_token> ids = std::move(unread_);
  unread_.clear();
  for (const Piece& piece : turn) {
    if (piece.kind != Piece::Kind::kPicture) {
      const std::vector<llama_token> next = cut(piece, question);
      ids.insert(ids.end(), next.begin(), next.end());
      continue;
    }
    check(picture != nullptr, "a turn shows a picture where there is none: export the model again");
    spent_.read += int64_t(ids.size()) + picture->tokens;
    read(ids);
    read(*picture);
    ids.clear();
  }
  spent_.read += int64_t(ids.size());
  read(ids);
}

void Conversation::read(const std::vector<llama_token>& ids) {
  std::vector<llama_token> copy = ids;
  for (const llama_token id : ids)
    check(id >= 0 && size_t(id) < is_unknown_.size(), "token " + std::to_string(id) + " is not in the vocabulary");
  for (size_t start = 0; start < copy.size(); start += kPiece)
    decode(llama_batch_get_one(copy.data() + start, int32_t(std::min<size_t>(kPiece, copy.size() - start))));
}

void Conversation::read(const Picture& picture) {
  check(picture.width == llama_model_n_embd(model_.get()), "image tokens are not as wide as the language model's");
  std::vector<float> copy = picture.values;
  for (int64_t start = 0; start < picture.tokens; start += kPiece) {
    llama_batch batch = {};
    batch.n_tokens = int32_t(std::min<int64_t>(kPiece, picture.tokens - start));
    batch.embd = copy.data() + start * picture.width;
    decode(batch);
  }
}

void Conversation::decode(const llama_batch& batch) {
  const int failed = llama_decode(context_.get(), batch);
  check(failed == 0, "llama.cpp could not read " + std::to_string(batch.n_tokens) + " tokens (status " +
                         std::to_string(failed) + "): a transformer's context of " + std::to_string(kRoom) +
                         " tokens is full");
}

std::vector<llama_token> Conversation::cut(const Piece& piece, const std::string& question) const {
  if (piece.kind == Piece::Kind::kToken) return {piece.token};
  std::string text;
  for (size_t part = 0; part < piece.parts.size(); ++part) text += (part ? question : "") + piece.parts[part];
  std::vector<llama_token> ids(text.size() + 8);
  // what looks like a special token in a text is none
  const int count =
      llama_tokenize(vocabulary_, text.data(), int32_t(text.size()), ids.data(), int32_t(ids.size()), false, false);
  check(count >= 0, "the question is too long");
  ids.resize(size_t(count));
  return ids;
}

llama_token Conversation::likeliest() const {
  const float* logits = llama_get_logits_ith(context_.get(), -1);
  check(logits != nullptr, "nothing was read");
  llama_token best = -1;
  for (size_t id = 0; id < is_unknown_.size(); ++id) {
    if (is_unknown_[id]) continue;
    if (std::isnan(logits[id])) throw Refused("its logits are no numbers: export the model again");
    if (best < 0 || logits[id] > logits[best]) best = llama_token(id);
  }
  return best;
}

std::string Conversation::text_of(llama_token token) const {
  std::string bytes(64, '\0');
  for (;;) {
    const int size = llama_token_to_piece(vocabulary_, token, bytes.data(), int32_t(bytes.size()), 0, false);
    if (size >= 0) return bytes.substr(0, size_t(size));
    bytes.resize(size_t(-size));
  }
}

}  // namespace cobra
