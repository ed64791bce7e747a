#include "cli/injected_files.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "cli/text_files.h"

namespace kdn::cli {

namespace fs = std::filesystem;

InjectedFiles::InjectedFiles(std::vector<fs::path> files)
    : files_(std::move(files)) {
  for (const fs::path& file : files_) {
    std::error_code unreadable;  // ReadText reports it
    const uintmax_t bytes = fs::file_size(file, unreadable);
    bytes_all_ += unreadable ? 0 : static_cast<double>(bytes);
  }
}

absl::StatusOr<std::optional<Injector::Text>> InjectedFiles::Next() {
  while (next_ < files_.size()) {
    const fs::path& file = files_[next_++];
    absl::StatusOr<std::string> text = ReadText(file);
    if (!text.ok()) return text.status();
    if (!text->empty() && text->find('\0') == std::string::npos) {
      texts_.push_back({file, static_cast<double>(text->size()), 0});
      return Injector::Text{file.string(), *std::move(text)};
    }
    bar_.Clear();
    std::fprintf(stderr, "skipped: %s is %s\n", file.c_str(),
                 text->empty() ? "empty" : "not a text file");
    bytes_done_ += static_cast<double>(text->size());
  }
  return std::nullopt;
}

void InjectedFiles::Advance(int number, int tokens, int all) {
  Text& text = texts_[static_cast<size_t>(number)];
  bytes_done_ += text.bytes * (tokens - text.tokens) / all;
  tokens_done_ += tokens - text.tokens;
  text.tokens = tokens;
  bar_.Show(text.file.filename().string(),
            std::min(1.0, bytes_done_ / std::max(bytes_all_, 1.0)),
            tokens_done_);
}

void InjectedFiles::Finish(int number, const Injected& injected) {
  Advance(number, injected.tokens, injected.tokens);
  sum_.chunks += injected.chunks;
  sum_.chunks_stored += injected.chunks_stored;
  sum_.chunks_otherwise += injected.chunks_otherwise;
  sum_.tokens += injected.tokens;
  sum_.bytes += injected.bytes;
}

}  // namespace kdn::cli
