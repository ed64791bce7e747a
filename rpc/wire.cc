#include "rpc/wire.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "rpc/api.h"

namespace kdn::rpc {

wire::Code ToWire(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return wire::Code::OK;
    case absl::StatusCode::kCancelled:
      return wire::Code::CANCELLED;
    case absl::StatusCode::kUnknown:
      return wire::Code::UNKNOWN;
    case absl::StatusCode::kInvalidArgument:
      return wire::Code::INVALID_ARGUMENT;
    case absl::StatusCode::kDeadlineExceeded:
      return wire::Code::DEADLINE_EXCEEDED;
    case absl::StatusCode::kNotFound:
      return wire::Code::NOT_FOUND;
    case absl::StatusCode::kAlreadyExists:
      return wire::Code::ALREADY_EXISTS;
    case absl::StatusCode::kPermissionDenied:
      return wire::Code::PERMISSION_DENIED;
    case absl::StatusCode::kResourceExhausted:
      return wire::Code::RESOURCE_EXHAUSTED;
    case absl::StatusCode::kFailedPrecondition:
      return wire::Code::FAILED_PRECONDITION;
    case absl::StatusCode::kAborted:
      return wire::Code::ABORTED;
    case absl::StatusCode::kOutOfRange:
      return wire::Code::OUT_OF_RANGE;
    case absl::StatusCode::kUnimplemented:
      return wire::Code::UNIMPLEMENTED;
    case absl::StatusCode::kInternal:
      return wire::Code::INTERNAL;
    case absl::StatusCode::kUnavailable:
      return wire::Code::UNAVAILABLE;
    case absl::StatusCode::kDataLoss:
      return wire::Code::DATA_LOSS;
    case absl::StatusCode::kUnauthenticated:
      return wire::Code::UNAUTHENTICATED;
    case absl::StatusCode::
        kDoNotUseReservedForFutureExpansionUseDefaultInSwitchInstead_:
      break;
  }
  return wire::Code::UNKNOWN;
}

absl::StatusCode FromWire(wire::Code code) {
  switch (code) {
    case wire::Code::OK:
      return absl::StatusCode::kOk;
    case wire::Code::CANCELLED:
      return absl::StatusCode::kCancelled;
    case wire::Code::UNKNOWN:
      return absl::StatusCode::kUnknown;
    case wire::Code::INVALID_ARGUMENT:
      return absl::StatusCode::kInvalidArgument;
    case wire::Code::DEADLINE_EXCEEDED:
      return absl::StatusCode::kDeadlineExceeded;
    case wire::Code::NOT_FOUND:
      return absl::StatusCode::kNotFound;
    case wire::Code::ALREADY_EXISTS:
      return absl::StatusCode::kAlreadyExists;
    case wire::Code::PERMISSION_DENIED:
      return absl::StatusCode::kPermissionDenied;
    case wire::Code::RESOURCE_EXHAUSTED:
      return absl::StatusCode::kResourceExhausted;
    case wire::Code::FAILED_PRECONDITION:
      return absl::StatusCode::kFailedPrecondition;
    case wire::Code::ABORTED:
      return absl::StatusCode::kAborted;
    case wire::Code::OUT_OF_RANGE:
      return absl::StatusCode::kOutOfRange;
    case wire::Code::UNIMPLEMENTED:
      return absl::StatusCode::kUnimplemented;
    case wire::Code::INTERNAL:
      return absl::StatusCode::kInternal;
    case wire::Code::UNAVAILABLE:
      return absl::StatusCode::kUnavailable;
    case wire::Code::DATA_LOSS:
      return absl::StatusCode::kDataLoss;
    case wire::Code::UNAUTHENTICATED:
      return absl::StatusCode::kUnauthenticated;
  }
  // A code of a newer peer is an error of an unknown kind.
  return absl::StatusCode::kUnknown;
}

void ToWire(const absl::Status& status, wire::Status::Builder out) {
  out.setCode(ToWire(status.code()));
  if (status.ok()) return;
  out.setMessage(std::string(status.message()).c_str());
}

absl::Status FromWire(wire::Status::Reader status) {
  return absl::Status(FromWire(status.getCode()),
                      FromWire(status.getMessage()));
}

absl::Status FromException(const kj::Exception& exception) {
  const std::string what = exception.getDescription().cStr();
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      return absl::UnavailableError(absl::StrCat("connection lost: ", what));
    case kj::Exception::Type::OVERLOADED:
      return absl::ResourceExhaustedError(what);
    case kj::Exception::Type::UNIMPLEMENTED:
      return absl::UnimplementedError(what);
    case kj::Exception::Type::FAILED:
      break;
  }
  return absl::InternalError(what);
}

std::string NameFromWire(capnp::Text::Reader text) {
  constexpr size_t kBytesMax = 257;  // the texts of a model have at most 256
  return std::string(text.begin(), std::min(text.size(), kBytesMax));
}

absl::Status BadDigest(const char* what, size_t bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " has ", bytes, " bytes, expected 32"));
}

namespace {

void ToWire(const RopeSpec& rope, wire::RopeSpec::Builder out) {
  out.setTheta(rope.theta);
  out.setRotaryDim(static_cast<uint32_t>(rope.rotary_dim));
  out.setPairing(static_cast<wire::RopePairing>(rope.pairing));
  out.setScaling(static_cast<wire::RopeScaling>(rope.scaling));
  out.setFactor(rope.factor);
  out.setLowFreqFactor(rope.low_freq_factor);
  out.setHighFreqFactor(rope.high_freq_factor);
  out.setOriginalMaxPosition(static_cast<uint32_t>(rope.original_max_position));
  out.setBetaFast(rope.beta_fast);
  out.setBetaSlow(rope.beta_slow);
  out.setAttentionFactor(rope.attention_factor);
}

// A number that does not fit an int becomes the largest int, which is above
// every bound.
int ClampToInt(uint32_t value) {
  return static_cast<int>(
      std::min<uint32_t>(value, std::numeric_limits<int32_t>::max()));
}

absl::StatusOr<RopeSpec> FromWire(wire::RopeSpec::Reader rope) {
  if (rope.getPairing() > wire::RopePairing::GPT_J ||
      rope.getScaling() > wire::RopeScaling::YARN) {
    return absl::UnimplementedError(
        "model.rope has a pairing or scaling that this node does not know");
  }
  RopeSpec out;
  out.theta = rope.getTheta();
  out.rotary_dim = ClampToInt(rope.getRotaryDim());
  out.pairing = static_cast<RopePairing>(rope.getPairing());
  out.scaling = static_cast<RopeScaling>(rope.getScaling());
  out.factor = rope.getFactor();
  out.low_freq_factor = rope.getLowFreqFactor();
  out.high_freq_factor = rope.getHighFreqFactor();
  out.original_max_position = ClampToInt(rope.getOriginalMaxPosition());
  out.beta_fast = rope.getBetaFast();
  out.beta_slow = rope.getBetaSlow();
  out.attention_factor = rope.getAttentionFactor();
  return out;
}

}  // namespace

void ToWire(const ModelSpec& model, wire::ModelSpec::Builder out) {
  out.setName(TextOf(model.name));
  out.setNumLayers(static_cast<uint32_t>(model.num_layers));
  out.setNumKvHeads(static_cast<uint32_t>(model.num_kv_heads));
  out.setHeadDim(static_cast<uint32_t>(model.head_dim));
  out.setDtype(static_cast<wire::Dtype>(model.dtype));
  ToWire(model.rope, out.initRope());
  out.setWeightsDigest(TextOf(model.weights_digest));
  out.setTokenizerDigest(TextOf(model.tokenizer_digest));
}

absl::StatusOr<ModelSpec> FromWire(wire::ModelSpec::Reader model) {
  ModelSpec out;
  out.name = NameFromWire(model.getName());
  out.num_layers = ClampToInt(model.getNumLayers());
  out.num_kv_heads = ClampToInt(model.getNumKvHeads());
  out.head_dim = ClampToInt(model.getHeadDim());
  if (model.getDtype() > wire::Dtype::FP32) {
    return absl::UnimplementedError(
        "model.dtype is a dtype that this node does not know");
  }
  out.dtype = static_cast<Dtype>(model.getDtype());
  absl::StatusOr<RopeSpec> rope = FromWire(model.getRope());
  if (!rope.ok()) return rope.status();
  out.rope = *rope;
  out.weights_digest = NameFromWire(model.getWeightsDigest());
  out.tokenizer_digest = NameFromWire(model.getTokenizerDigest());
  if (absl::Status status = Validate(out); !status.ok()) return status;
  return out;
}

void ToWire(const KvStrides& strides, wire::Strides::Builder out) {
  out.setLayer(static_cast<uint64_t>(strides.layer));
  out.setPart(static_cast<uint64_t>(strides.part));
  out.setToken(static_cast<uint64_t>(strides.token));
  out.setHead(static_cast<uint64_t>(strides.head));
}

KvStrides FromWire(wire::Strides::Reader strides) {
  return KvStrides{static_cast<int64_t>(strides.getLayer()),
                   static_cast<int64_t>(strides.getPart()),
                   static_cast<int64_t>(strides.getToken()),
                   static_cast<int64_t>(strides.getHead())};
}

void ToWire(const KvSlice& slice, wire::Slice::Builder out) {
  out.setLayerBegin(static_cast<uint32_t>(slice.layer_begin));
  out.setLayerEnd(static_cast<uint32_t>(slice.layer_end));
  out.setHeadBegin(static_cast<uint32_t>(slice.head_begin));
  out.setHeadEnd(static_cast<uint32_t>(slice.head_end));
}

absl::StatusOr<KvSlice> FromWire(wire::Slice::Reader slice,
                                 const ModelSpec& model) {
  const KvSlice out{
      ClampToInt(slice.getLayerBegin()), ClampToInt(slice.getLayerEnd()),
      ClampToInt(slice.getHeadBegin()), ClampToInt(slice.getHeadEnd())};
  if (out == KvSlice{}) return WholeOf(model);
  if (absl::Status status = Validate(out, model); !status.ok()) return status;
  return out;
}

void ToWire(const ChunkRef& ref, wire::ChunkRef::Builder out) {
  out.setKey(ToWire(ref.key));
}

absl::StatusOr<ChunkRef> FromWire(wire::ChunkRef::Reader ref) {
  auto key = DigestFromWire<ChunkKey>(ref.getKey(), "chunk key");
  if (!key.ok()) return key.status();
  return ChunkRef{*key};
}

absl::StatusOr<std::vector<ChunkRef>> FromWire(
    capnp::List<wire::ChunkRef>::Reader refs, size_t count_max) {
  if (refs.size() > count_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        refs.size(), " chunks in one call, expected at most ", count_max));
  }
  std::vector<ChunkRef> out;
  out.reserve(refs.size());
  for (const auto ref : refs) {
    absl::StatusOr<ChunkRef> parsed = FromWire(ref);
    if (!parsed.ok()) return parsed.status();
    out.push_back(*parsed);
  }
  return out;
}

std::vector<int32_t> FromWire(capnp::List<int32_t>::Reader values) {
  std::vector<int32_t> out;
  out.reserve(values.size());
  for (const int32_t value : values) out.push_back(value);
  return out;
}

void ToWire(const MetricSample& sample, wire::Metric::Builder out) {
  out.setName(TextOf(sample.name));
  out.setType(static_cast<wire::MetricType>(sample.type));
  if (sample.type != MetricType::kHistogram) return out.setValue(sample.value);
  out.setValue(sample.histogram.sum());
  const std::vector<Histogram::Bucket> buckets = sample.histogram.Buckets();
  auto list = out.initBuckets(static_cast<unsigned>(buckets.size()));
  for (unsigned i = 0; i < buckets.size(); ++i) {
    list[i].setAtMost(buckets[i].at_most);
    list[i].setCount(buckets[i].count);
  }
}

MetricSample FromWire(wire::Metric::Reader metric) {
  MetricSample sample;
  sample.name = FromWire(metric.getName());
  switch (metric.getType()) {
    case wire::MetricType::COUNTER:
      sample.type = MetricType::kCounter;
      break;
    case wire::MetricType::GAUGE:
      sample.type = MetricType::kGauge;
      break;
    case wire::MetricType::HISTOGRAM:
      sample.type = MetricType::kHistogram;
      sample.histogram.AddSum(metric.getValue());
      for (const auto bucket : metric.getBuckets()) {
        sample.histogram.AddBucket(bucket.getAtMost(), bucket.getCount());
      }
      return sample;
  }
  sample.value = metric.getValue();
  return sample;
}

wire::Level ToWire(Level level) {
  switch (level) {
    case Level::kLossless:
      return wire::Level::LOSSLESS;
    case Level::kInt8:
      return wire::Level::INT8;
    case Level::kBase:
      return wire::Level::BASE;
    case Level::kBase1:
      return wire::Level::BASE1;
    case Level::kBase2:
      return wire::Level::BASE2;
    case Level::kArchive:
      return wire::Level::ARCHIVE;
  }
  KDN_CHECK(false, "level out of range");
  return wire::Level::LOSSLESS;
}

Level FromWire(wire::Level level) {
  switch (level) {
    case wire::Level::LOSSLESS:
      return Level::kLossless;
    case wire::Level::INT8:
      return Level::kInt8;
    case wire::Level::BASE:
      return Level::kBase;
    case wire::Level::BASE1:
      return Level::kBase1;
    case wire::Level::BASE2:
      return Level::kBase2;
    case wire::Level::ARCHIVE:
      return Level::kArchive;
  }
  return Level::kLossless;
}

absl::StatusOr<LevelSet> LevelsFromWire(uint8_t bits, LevelSet when_zero) {
  if (bits == 0) return when_zero;
  const LevelSet levels = LevelSet::FromBits(bits);
  if (levels.bits() != bits) {
    return absl::UnimplementedError(
        absl::StrCat("level mask ", bits, " has a bit beyond the ", kLevelCount,
                     " levels that this node knows"));
  }
  return levels;
}

absl::StatusOr<absl::Duration> TimeoutFromWire(uint32_t deadline_ms) {
  if (deadline_ms == 0) return kDefaultTimeout;
  const absl::Duration timeout = absl::Milliseconds(deadline_ms);
  if (timeout > kTimeoutMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("deadlineMs is ", deadline_ms, ", expected 0 to 600000"));
  }
  return timeout;
}

uint32_t TimeoutToWire(absl::Duration timeout) {
  const absl::Duration clamped =
      std::clamp(absl::Ceil(timeout, absl::Milliseconds(1)),
                 absl::Milliseconds(1), kTimeoutMax);
  const int64_t ms = absl::ToInt64Milliseconds(clamped);
  KDN_CHECK(ms >= 1 && ms <= 600000, "a clamped timeout is out of bounds");
  return static_cast<uint32_t>(ms);
}

}  // namespace kdn::rpc
