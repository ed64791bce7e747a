#include "blend/selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "kv/mix.h"

namespace kdn::blend {
namespace {

// Calls `take(candidate, part)` with the number of each candidate and the part
// that it belongs to.
template <typename Take>
void ForEachWithPart(const Evidence& evidence, Take take) {
  const std::vector<Part>& parts = evidence.composition.parts;
  size_t part = 0;
  for (size_t i = 0; i < evidence.candidates.size(); ++i) {
    while (evidence.candidates[i] >= parts[part].end) ++part;
    take(i, parts[part]);
  }
}

class RandomTokensRule : public Selection {
 public:
  explicit RandomTokensRule(uint64_t seed) : seed_(seed) {}
  std::string name() const override { return "random"; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores;
    for (const int token : evidence.candidates) {
      const uint64_t mixed = Mix(static_cast<uint64_t>(token) + kMixStep);
      const uint64_t bits = Mix((seed_ ^ mixed) + kMixStep);
      scores.push_back(static_cast<float>(bits >> 40));
    }
    return scores;
  }

 private:
  uint64_t seed_;
};

class PartHeadsRule : public Selection {
 public:
  std::string name() const override { return "part_heads"; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores(evidence.candidates.size());
    ForEachWithPart(evidence, [&](size_t i, const Part& part) {
      scores[i] = static_cast<float>(part.begin - evidence.candidates[i]);
    });
    return scores;
  }
};

class PartEndsRule : public Selection {
 public:
  std::string name() const override { return "part_ends"; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores(evidence.candidates.size());
    ForEachWithPart(evidence, [&](size_t i, const Part& part) {
      const int token = evidence.candidates[i];
      scores[i] = static_cast<float>(
          -std::min(token - part.begin, part.end - 1 - token));
    });
    return scores;
  }
};

class KvDeviationRule : public Selection {
 public:
  explicit KvDeviationRule(int layer) : layer_(layer) {}
  std::string name() const override {
    return absl::StrCat("kv_deviation@", layer_);
  }
  int check_layer() const override { return layer_; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores(evidence.candidates.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = evidence.k_deviation[i] + evidence.v_deviation[i];
    }
    return scores;
  }

 private:
  int layer_;
};

class QueryAttentionRule : public Selection {
 public:
  std::string name() const override { return "query_attention"; }
  bool WantsAttention() const override { return true; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores;
    for (const int token : evidence.candidates) {
      scores.push_back(evidence.attention[token]);
    }
    return scores;
  }
};

class AttentionTimesDeviationRule : public Selection {
 public:
  explicit AttentionTimesDeviationRule(int layer) : layer_(layer) {}
  std::string name() const override {
    return absl::StrCat("attention_x_deviation@", layer_);
  }
  bool WantsAttention() const override { return true; }
  int check_layer() const override { return layer_; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores(evidence.candidates.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] = evidence.attention[evidence.candidates[i]] *
                  std::sqrt(evidence.v_deviation[i]);
    }
    return scores;
  }

 private:
  int layer_;
};

class AttendedPartsRule : public Selection {
 public:
  std::string name() const override { return "attended_parts"; }
  bool WantsAttention() const override { return true; }
  std::vector<float> Score(const Evidence& evidence) const override {
    std::vector<float> scores(evidence.candidates.size());
    ForEachWithPart(evidence, [&](size_t i, const Part& part) {
      const auto tokens = evidence.attention.subspan(
          static_cast<size_t>(part.begin),
          static_cast<size_t>(part.end - part.begin));
      scores[i] = std::accumulate(tokens.begin(), tokens.end(), 0.0f) /
                  static_cast<float>(tokens.size());
    });
    return scores;
  }
};

}  // namespace

std::vector<int> Highest(absl::Span<const int> candidates,
                         absl::Span<const float> scores, int count) {
  KDN_CHECK(scores.size() == candidates.size(), "each candidate has one score");
  std::vector<int> order(candidates.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return scores[a] > scores[b]; });
  order.resize(std::min(order.size(), static_cast<size_t>(std::max(count, 0))));
  for (int& each : order) each = candidates[each];
  std::sort(order.begin(), order.end());
  return order;
}

std::unique_ptr<Selection> RandomTokens(uint64_t seed) {
  return std::make_unique<RandomTokensRule>(seed);
}
std::unique_ptr<Selection> PartHeads() {
  return std::make_unique<PartHeadsRule>();
}
std::unique_ptr<Selection> PartEnds() {
  return std::make_unique<PartEndsRule>();
}
std::unique_ptr<Selection> KvDeviation(int check_layer) {
  return std::make_unique<KvDeviationRule>(check_layer);
}
std::unique_ptr<Selection> QueryAttention() {
  return std::make_unique<QueryAttentionRule>();
}
std::unique_ptr<Selection> AttentionTimesDeviation(int check_layer) {
  return std::make_unique<AttentionTimesDeviationRule>(check_layer);
}
std::unique_ptr<Selection> AttendedParts() {
  return std::make_unique<AttendedPartsRule>();
}

}  // namespace kdn::blend
