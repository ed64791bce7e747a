#include "kv/chunk_key.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn {
namespace {

bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

absl::Status ValidateName(const char* what, std::string_view text) {
  if (text.empty() || text.size() > 128 ||
      !std::all_of(text.begin(), text.end(), IsNameChar)) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " '",
        absl::string_view(text.data(), std::min<size_t>(text.size(), 140)),
        "': expected 1 to 128 characters of A-Z a-z 0-9 . _ -"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Namespace> Namespace::Parse(std::string_view text) {
  if (absl::Status status = ValidateName("namespace", text); !status.ok()) {
    return status;
  }
  return Namespace(std::string(text));
}

absl::Status Validate(const ChunkIdentity& identity) {
  const size_t tokens = identity.tokens.size();
  if (tokens == 0 || tokens > kChunkTokensMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chunk has ", tokens, " tokens, expected 1 to ", kChunkTokensMax));
  }
  for (size_t i = 0; i < tokens; ++i) {
    if (identity.tokens[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", i, " of the chunk is ", identity.tokens[i],
                       ", expected an id of at least 0"));
    }
  }
  return ValidateName("variant", identity.variant);
}

absl::Status ValidateDepth(const ChunkIdentity& identity, uint32_t depth) {
  if (identity.condition.is_zero() == (depth == 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the chunk's depth is ", depth, ", but it is ",
                   depth == 0 ? "conditioned on another chunk" : "standalone"));
}

ChunkKey KeyOf(const ChunkIdentity& identity, uint32_t depth) {
  DigestBuilder builder("kdn-chunk-1");
  builder.Add(absl::Span<const uint8_t>(identity.fingerprint.bytes()))
      .Add(std::string_view(identity.ns.name()))
      .Add(absl::Span<const uint8_t>(identity.condition.bytes()))
      .Add(std::string_view(identity.variant))
      .Add(absl::Span<const int32_t>(identity.tokens));
  auto bytes = builder.Finish();
  if (depth % kPlacementGroupChunks != 0) {
    std::copy_n(identity.condition.bytes().begin(), kPlacementBytes,
                bytes.begin());
  }
  return ChunkKey(bytes);
}

std::vector<ChainChunk> CutChain(const ModelFingerprint& fingerprint,
                                 const Namespace& ns,
                                 absl::Span<const int32_t> tokens) {
  KDN_CHECK(!tokens.empty(), "a text without tokens has no chunks");
  std::vector<ChainChunk> chain;
  ChunkKey condition;
  for (size_t begin = 0; begin < tokens.size(); begin += kChunkTokens) {
    const auto run = tokens.subspan(begin, kChunkTokens);
    ChunkIdentity identity{fingerprint,
                           ns,
                           condition,
                           std::string(kRawVariant),
                           {run.begin(), run.end()}};
    const auto depth = static_cast<uint32_t>(chain.size());
    condition = KeyOf(identity, depth);
    chain.push_back(ChainChunk{std::move(identity), ChunkRef{condition},
                               static_cast<int>(begin), depth});
  }
  return chain;
}

std::vector<GoldenVector> GoldenVectors() {
  ModelSpec spec;
  spec.name = "golden";
  spec.num_layers = 2;
  spec.num_kv_heads = 1;
  spec.head_dim = 64;
  spec.rope.theta = 500000.0;
  spec.rope.rotary_dim = 64;
  spec.weights_digest = "weights";
  spec.tokenizer_digest = "tokenizer";
  const ModelFingerprint fingerprint = FingerprintOf(spec);
  const Namespace ns = *Namespace::Parse("golden");
  std::vector<int32_t> tokens(kChunkTokens + 1);
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::vector<ChainChunk> chain = CutChain(fingerprint, ns, tokens);
  return {{"model", ChunkKey(fingerprint.bytes())},
          {"first-chunk", chain[0].ref.key},
          {"chained-chunk", chain[1].ref.key}};
}

}  // namespace kdn
