#include "cli/demo_report.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kdn::cli {
namespace {

// Questions whose answers are shown in full.
constexpr size_t kShownMax = 4;
// More than the demo's longest answer has.
constexpr size_t kAnswerBytesMax = 400;

int Right(const DemoRound& round) {
  return static_cast<int>(
      std::count_if(round.answers.begin(), round.answers.end(),
                    [](const DemoAnswer& each) { return each.right; }));
}

double MedianFirstTokenMs(const DemoRound& round) {
  std::vector<double> times;
  for (const DemoAnswer& each : round.answers) {
    times.push_back(
        absl::ToDoubleMilliseconds(each.answer.time_to_first_token));
  }
  if (times.empty()) return 0;
  const auto middle =
      times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

// The sum over the answers of a field of Answer.
template <typename Value>
Value Sum(const DemoRound& round, Value Answer::*field) {
  Value sum = 0;
  for (const DemoAnswer& each : round.answers) sum += each.answer.*field;
  return sum;
}

ChunkSources SumOfSources(const DemoRound& round) {
  ChunkSources sum;
  for (const DemoAnswer& each : round.answers) {
    sum.memory += each.answer.chunk_sources.memory;
    sum.disk += each.answer.chunk_sources.disk;
    sum.peers += each.answer.chunk_sources.peers;
  }
  return sum;
}

bool AllSame(const DemoRound& round, const DemoRound& other) {
  return SameTokens(round, other) == static_cast<int>(round.answers.size());
}

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

std::string OfAll(int count, const DemoResult& result) {
  return absl::StrCat(count, " of ", result.questions.size());
}

std::string TableLine(const DemoRound& round, const DemoResult& result) {
  const std::string line =
      absl::StrFormat("%-16s %8s %8.1f", round.knowledge,
                      OfAll(Right(round), result), MedianFirstTokenMs(round));
  if (round.bytes_stored == 0) return line + "\n";
  const ChunkSources sources = SumOfSources(round);
  return absl::StrFormat(
      "%s %8.2f %10.2f %7.2f %7d %5d %6d %7d %12s\n", line,
      Megabytes(round.bytes_stored), Megabytes(Sum(round, &Answer::kv_bytes)),
      Megabytes(Sum(round, &Answer::wire_bytes)), sources.memory, sources.disk,
      sources.peers, Sum(round, &Answer::chunks_missed),
      OfAll(SameTokens(round, result.prefilled), result));
}

nlohmann::json RoundJson(const DemoRound& round, const DemoResult& result) {
  const ChunkSources sources = SumOfSources(round);
  nlohmann::json answers = nlohmann::json::array();
  for (size_t i = 0; i < round.answers.size(); ++i) {
    answers.push_back({{"question", result.questions[i].question},
                       {"answer", round.answers[i].said},
                       {"right", round.answers[i].right}});
  }
  return {{"knowledge", round.knowledge},
          {"right", Right(round)},
          {"ttft_ms", MedianFirstTokenMs(round)},
          {"bytes_stored", round.bytes_stored},
          {"kv_bytes_delivered", Sum(round, &Answer::kv_bytes)},
          {"wire_bytes", Sum(round, &Answer::wire_bytes)},
          {"chunks_from_memory", sources.memory},
          {"chunks_from_disk", sources.disk},
          {"chunks_from_peers", sources.peers},
          {"misses", Sum(round, &Answer::chunks_missed)},
          {"same_tokens_as_prefill", SameTokens(round, result.prefilled)},
          {"answers", answers}};
}

}  // namespace

int SameTokens(const DemoRound& round, const DemoRound& other) {
  int same = 0;
  for (size_t i = 0; i < round.answers.size(); ++i) {
    const bool equal =
        i < other.answers.size() &&
        round.answers[i].answer.tokens == other.answers[i].answer.tokens;
    same += equal ? 1 : 0;
  }
  return same;
}

std::string DemoTable(const DemoResult& result) {
  std::string table = absl::StrFormat(
      "%-16s %8s %8s %8s %10s %7s %7s %5s %6s %7s %12s\n", "knowledge", "right",
      "TTFT ms", "stored", "delivered", "sent", "memory", "disk", "peers",
      "missed", "same tokens");
  for (const DemoRound* round : result.rounds()) {
    absl::StrAppend(&table, TableLine(*round, result));
  }
  absl::StrAppend(
      &table,
      "TTFT: the median time to the first token. stored: MB of one encoded "
      "copy "
      "of the texts.\ndelivered: MB of KV that the engine got. sent: encoded "
      "MB "
      "between nodes. memory, disk:\nchunks from the memory and the disk of "
      "the "
      "engine's node. peers: chunks from other nodes.\nsame tokens: answers "
      "that have the tokens of the prefilled answers.\n");
  return table;
}

std::string DemoAnswers(const DemoResult& result) {
  const size_t count = result.questions.size();
  const size_t shown = std::min(kShownMax, count);
  std::string text;
  for (size_t i = 0; i < shown; ++i) {
    const size_t question = i * count / shown;
    absl::StrAppend(&text, result.questions[question].question, "\n");
    for (const DemoRound* round : result.rounds()) {
      const DemoAnswer& each = round->answers[question];
      absl::StrAppendFormat(&text, "  %-16s %-5s  %s\n", round->knowledge,
                            each.right ? "right" : "wrong",
                            OneLine(each.said, kAnswerBytesMax));
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

nlohmann::json DemoJson(const DemoResult& result) {
  nlohmann::json rounds = nlohmann::json::array();
  for (const DemoRound* round : result.rounds()) {
    rounds.push_back(RoundJson(*round, result));
  }
  return {
      {"model", result.model},
      {"nodes", result.nodes},
      {"texts", result.texts},
      {"tokens_injected", result.injected.tokens},
      {"chunks", result.injected.chunks},
      {"kv_bytes_injected", result.injected.bytes},
      {"questions", result.questions.size()},
      {"right_without", Right(result.nothing)},
      {"right_prefill", Right(result.prefilled)},
      {"right_kdn", Right(result.lossless)},
      {"right_after_kill", Right(result.after_kill)},
      {"same_tokens", AllSame(result.lossless, result.prefilled)},
      {"same_tokens_after_kill", AllSame(result.after_kill, result.prefilled)},
      {"ttft_ms_prefill", MedianFirstTokenMs(result.prefilled)},
      {"ttft_ms_kdn", MedianFirstTokenMs(result.lossless)},
      {"ttft_ms_after_kill", MedianFirstTokenMs(result.after_kill)},
      {"kv_bytes_delivered", Sum(result.lossless, &Answer::kv_bytes)},
      {"misses", Sum(result.lossless, &Answer::chunks_missed)},
      {"killed", result.killed},
      {"misses_after_kill", Sum(result.after_kill, &Answer::chunks_missed)},
      {"rounds", rounds}};
}

std::vector<std::string> DemoFailures(const DemoResult& result) {
  std::vector<std::string> failures;
  for (const DemoRound* round : result.rounds()) {
    const int misses = Sum(*round, &Answer::chunks_missed);
    if (misses == 0) continue;
    failures.push_back(absl::StrCat(round->knowledge, ": ", misses,
                                    " injected chunks were not delivered"));
  }
  for (const DemoRound* round : {&result.lossless, &result.after_kill}) {
    if (AllSame(*round, result.prefilled)) continue;
    failures.push_back(
        absl::StrCat(round->knowledge, ": only ",
                     OfAll(SameTokens(*round, result.prefilled), result),
                     " answers have the tokens of the prefilled answers"));
  }
  if (Right(result.lossless) <= Right(result.nothing)) {
    failures.push_back(
        "the texts did not make more answers right, so nothing shows that they "
        "reached the model; if the prefilled answers are wrong too, choose "
        "another model with --model");
  }
  return failures;
}

std::string OneLine(const std::string& text, size_t bytes_max) {
  std::string line = text;
  std::replace_if(line.begin(), line.end(), absl::ascii_isspace, ' ');
  absl::RemoveExtraAsciiWhitespace(&line);
  if (line.size() <= bytes_max) return line;
  size_t end = bytes_max - 3;
  // Not in the middle of a character of UTF-8.
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) {
    --end;
  }
  return line.substr(0, end) + "...";
}

}  // namespace kdn::cli
