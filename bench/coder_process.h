#ifndef KDN_BENCH_CODER_PROCESS_H_
#define KDN_BENCH_CODER_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "bench/kv_tensor.h"

namespace kdn::bench {

// A quantising codec of others, in a process of its own. The process reads
// requests from its standard input and writes its messages to its standard
// output. A message is one line of JSON. Behind a request and its reply are the
// values of a chunk, in the KV's dtype, as [layer][K|V][head][token][dim].
//
//   when it has started:  {"ready": true}
//   request:              {"shape": [30, 2, 3, 256, 64], "dtype": "bf16",
//                          "key_bins": [32, ...], "value_bins": [32, ...],
//                          "bytes": 5898240}
//   reply:                {"size": 1064874, "bytes": 5898240}
//   in place of either message of the process:  {"error": "a sentence"}
//
// `size` is that of the coded chunk, and `bytes` that of the values behind the
// line.
class CoderProcess {
 public:
  struct Deadlines {
    absl::Duration start = absl::Minutes(20);  // it may fetch what it needs
    absl::Duration chunk = absl::Minutes(5);
  };

  // Starts a command and waits until it is ready. NOT_FOUND when it cannot be
  // started; the other errors are those of Code.
  static absl::StatusOr<std::unique_ptr<CoderProcess>> Start(
      const std::vector<std::string>& command, const Deadlines& deadlines);
  // Kills the process.
  ~CoderProcess();
  CoderProcess(const CoderProcess&) = delete;
  CoderProcess& operator=(const CoderProcess&) = delete;

  // Codes and decodes a chunk. Each layer has a number of bins for K and one
  // for V. DEADLINE_EXCEEDED when the process is silent; UNAVAILABLE when it
  // ends; DATA_LOSS when its answer is malformed; FAILED_PRECONDITION when it
  // reports an error. After an error the process cannot be used.
  absl::StatusOr<Coded> Code(const KvTensor& kv, absl::Span<const int> key_bins,
                             absl::Span<const int> value_bins);

 private:
  explicit CoderProcess(const Deadlines& deadlines) : deadlines_(deadlines) {}
  absl::Status Spawn(std::vector<std::string> command);
  absl::Status Send(absl::Span<const char> content, absl::Time deadline);
  absl::Status Receive(absl::Span<char> content, absl::Time deadline);
  absl::StatusOr<std::string> ReceiveLine(absl::Time deadline);
  absl::Status WaitFor(short event, absl::Time deadline);
  // Takes the process's exit code and says that it ended.
  absl::Status Ended();

  Deadlines deadlines_;
  pid_t process_ = -1;
  int socket_ = -1;  // the process's standard input and output
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_CODER_PROCESS_H_
