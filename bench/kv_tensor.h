#ifndef KDN_BENCH_KV_TENSOR_H_
#define KDN_BENCH_KV_TENSOR_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kv/kv_view.h"

namespace kdn::bench {

// KV as floats, [layer][K|V][head][token][dim]. Codecs are compared on these.
class KvTensor {
 public:
  explicit KvTensor(const KvShape& shape);
  // Copies the values of a view of any dtype and strides.
  static KvTensor Of(const KvView& view);
  // Rounds the values into a view. REQUIRES: the view has the same shape.
  void Store(const MutableKvView& view) const;

  const KvShape& shape() const { return shape_; }
  size_t size() const { return values_.size(); }
  absl::Span<float> Row(int layer, KvPart part, int head, int token);
  absl::Span<const float> Row(int layer, KvPart part, int head,
                              int token) const;
  absl::Span<float> values() { return absl::MakeSpan(values_); }
  absl::Span<const float> values() const { return values_; }
  // A copy of the tokens [begin, begin + count).
  KvTensor Tokens(int begin, int count) const;
  // Overwrites the tokens from `begin` on with those of `part`.
  void Place(int begin, const KvTensor& part);

 private:
  KvShape shape_;
  std::vector<float> values_;
};

// A chunk after coding and decoding.
struct Coded {
  KvTensor kv;       // decoded
  size_t bytes = 0;  // coded size with all side information
};

// One setting of one codec. `code` takes a chunk's KV, K after RoPE, and the
// positions where it was computed.
struct CodecUnderTest {
  std::string name;
  std::string family;  // settings of one family form one curve
  std::function<absl::StatusOr<Coded>(const KvTensor& kv,
                                      absl::Span<const int32_t> positions)>
      code;
};

}  // namespace kdn::bench

#endif  // KDN_BENCH_KV_TENSOR_H_
