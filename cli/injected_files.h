#ifndef KDN_CLI_INJECTED_FILES_H_
#define KDN_CLI_INJECTED_FILES_H_

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/injector.h"
#include "cli/progress_bar.h"

namespace kdn::cli {

// The files of one `kdn inject`: reads them one after the other, and shows how
// far they are.
class InjectedFiles {
 public:
  explicit InjectedFiles(std::vector<std::filesystem::path> files);

  // The next file that is a text, or nullopt behind the last one. Reports the
  // files that it skips.
  absl::StatusOr<std::optional<Injector::Text>> Next();
  // `tokens` of the text's `all` tokens have been prefilled.
  void Advance(int number, int tokens, int all);
  void Finish(int number, const Injected& injected);

  void ClearBar() const { bar_.Clear(); }
  int count() const { return static_cast<int>(texts_.size()); }
  const Injected& sum() const { return sum_; }

 private:
  struct Text {
    std::filesystem::path file;
    double bytes = 0;
    int tokens = 0;  // prefilled so far
  };

  const std::vector<std::filesystem::path> files_;
  size_t next_ = 0;
  std::vector<Text> texts_;
  double bytes_all_ = 0;
  double bytes_done_ = 0;
  int tokens_done_ = 0;
  Injected sum_;
  ProgressBar bar_;
};

}  // namespace kdn::cli

#endif  // KDN_CLI_INJECTED_FILES_H_
