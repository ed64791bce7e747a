#include "bench/coder_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kv/clock.h"
#include "kv/dtype.h"

namespace kdn::bench {
namespace {

using Json = nlohmann::json;

constexpr size_t kLineBytesMax = 1 << 16;
// How long a process that closed its output may take to exit.
constexpr absl::Duration kExit = absl::Seconds(2);

absl::Status Malformed(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the coder process sent ", what));
}

// A message of the process, or the error that it reports.
absl::StatusOr<Json> Parse(const std::string& line) {
  Json message = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!message.is_object()) return Malformed("a line that is no JSON object");
  if (const auto error = message.find("error"); error != message.end()) {
    return absl::FailedPreconditionError(
        error->is_string() ? error->get<std::string>() : error->dump());
  }
  return message;
}

// A positive number of a message; 0 when it has none of that name.
uint64_t NumberOf(const Json& message, const char* name) {
  const auto number = message.find(name);
  return number != message.end() && number->is_number_unsigned()
             ? number->get<uint64_t>()
             : 0;
}

std::string RequestLine(const KvShape& shape, absl::Span<const int> key_bins,
                        absl::Span<const int> value_bins) {
  const Json request = {
      {"shape",
       {shape.layers, 2, shape.kv_heads, shape.tokens, shape.head_dim}},
      {"dtype", std::string(Name(shape.dtype))},
      {"key_bins", std::vector<int>(key_bins.begin(), key_bins.end())},
      {"value_bins", std::vector<int>(value_bins.begin(), value_bins.end())},
      {"bytes", shape.bytes()}};
  return absl::StrCat(request.dump(), "\n");
}

std::string HowItEnded(int status) {
  return WIFSIGNALED(status)
             ? absl::StrCat("was killed by signal ", WTERMSIG(status))
             : absl::StrCat("ended with exit code ", WEXITSTATUS(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoderProcess>> CoderProcess::Start(
    const std::vector<std::string>& command, const Deadlines& deadlines) {
  std::unique_ptr<CoderProcess> coder(new CoderProcess(deadlines));
  if (absl::Status s = coder->Spawn(command); !s.ok()) return s;
  const auto line = coder->ReceiveLine(SteadyNow() + deadlines.start);
  if (!line.ok()) return line.status();
  const absl::StatusOr<Json> message = Parse(*line);
  if (!message.ok()) return message.status();
  if (!message->contains("ready")) return Malformed("no \"ready\" at first");
  return coder;
}

absl::Status CoderProcess::Spawn(std::vector<std::string> command) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::ErrnoToStatus(errno, "no socket for a coder process");
  }
  socket_ = ends[0];
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t streams;
  posix_spawn_file_actions_init(&streams);
  posix_spawn_file_actions_adddup2(&streams, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&streams, ends[1], STDOUT_FILENO);
  // A group of its own, so that the programs that it starts end with it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const int error = posix_spawnp(&process_, arguments[0], &streams, &attributes,
                                 arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&streams);
  close(ends[1]);
  if (error == 0) return absl::OkStatus();
  process_ = -1;
  return absl::NotFoundError(
      absl::StrCat("cannot start ", command[0], ": ", strerror(error)));
}

CoderProcess::~CoderProcess() {
  if (process_ > 0) {
    kill(-process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  if (socket_ >= 0) close(socket_);
}

absl::Status CoderProcess::Ended() {
  int status = 0;
  const absl::Time deadline = SteadyNow() + kExit;
  while (process_ > 0 && waitpid(process_, &status, WNOHANG) == 0) {
    if (SteadyNow() >= deadline) {
      return absl::UnavailableError("the coder process closed its output");
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  process_ = -1;
  return absl::UnavailableError(
      absl::StrCat("the coder process ", HowItEnded(status)));
}

absl::Status CoderProcess::WaitFor(short event, absl::Time deadline) {
  while (true) {
    const absl::Duration left = deadline - SteadyNow();
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("the coder process does not answer");
    }
    pollfd one = {socket_, event, 0};
    const int64_t milliseconds = absl::ToInt64Milliseconds(left) + 1;
    const int ready =
        poll(&one, 1, static_cast<int>(std::min<int64_t>(milliseconds, 1000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "waiting for a coder process");
    }
  }
}

absl::Status CoderProcess::Send(absl::Span<const char> content,
                                absl::Time deadline) {
  while (!content.empty()) {
    if (absl::Status s = WaitFor(POLLOUT, deadline); !s.ok()) return s;
    const ssize_t sent = send(socket_, content.data(), content.size(),
                              MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      content.remove_prefix(static_cast<size_t>(sent));
    } else if (errno != EAGAIN && errno != EINTR) {
      return Ended();
    }
  }
  return absl::OkStatus();
}

absl::Status CoderProcess::Receive(absl::Span<char> content,
                                   absl::Time deadline) {
  while (!content.empty()) {
    if (absl::Status s = WaitFor(POLLIN, deadline); !s.ok()) return s;
    const ssize_t received =
        recv(socket_, content.data(), content.size(), MSG_DONTWAIT);
    if (received > 0) {
      content.remove_prefix(static_cast<size_t>(received));
    } else if (received == 0 || (errno != EAGAIN && errno != EINTR)) {
      return Ended();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> CoderProcess::ReceiveLine(absl::Time deadline) {
  std::string line;
  while (line.size() < kLineBytesMax) {
    char next = 0;
    if (absl::Status s = Receive({&next, 1}, deadline); !s.ok()) return s;
    if (next == '\n') return line;
    line.push_back(next);
  }
  return Malformed("a line without an end");
}

absl::StatusOr<Coded> CoderProcess::Code(const KvTensor& kv,
                                         absl::Span<const int> key_bins,
                                         absl::Span<const int> value_bins) {
  const KvShape& shape = kv.shape();
  const absl::Time deadline = SteadyNow() + deadlines_.chunk;
  std::vector<std::byte> values(shape.bytes());
  const MutableKvView view(values.data(), shape, KvStrides::HeadMajor(shape));
  kv.Store(view);
  const absl::Span<char> bytes(reinterpret_cast<char*>(values.data()),
                               values.size());
  const std::string request = RequestLine(shape, key_bins, value_bins);
  if (absl::Status s = Send(request, deadline); !s.ok()) return s;
  if (absl::Status s = Send(bytes, deadline); !s.ok()) return s;
  const absl::StatusOr<std::string> line = ReceiveLine(deadline);
  if (!line.ok()) return line.status();
  const absl::StatusOr<Json> reply = Parse(*line);
  if (!reply.ok()) return reply.status();
  const uint64_t size = NumberOf(*reply, "size");
  if (size == 0) return Malformed("no size of the coded chunk");
  if (NumberOf(*reply, "bytes") != values.size()) {
    return Malformed(absl::StrCat(NumberOf(*reply, "bytes"),
                                  " bytes of KV for a chunk of ",
                                  values.size()));
  }
  if (absl::Status s = Receive(bytes, deadline); !s.ok()) return s;
  return Coded{KvTensor::Of(view), size};
}

}  // namespace kdn::bench
