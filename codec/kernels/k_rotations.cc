#include "codec/kernels/k_rotations.h"

#include <utility>

#include "kv/check.h"

namespace kdn::codec {

KRotations::KRotations(const RopeSpec& rope, std::vector<int32_t> computed_at,
                       std::vector<int32_t> wanted_at)
    : rope_(rope),
      computed_at_(std::move(computed_at)),
      wanted_at_(std::move(wanted_at)) {
  KDN_CHECK(computed_at_.size() == wanted_at_.size(),
            "one wanted position per token");
}

const RowRotation* KRotations::For(KForm form) const {
  switch (form) {
    case KForm::kAsComputed:
      if (computed_at_ == wanted_at_) return nullptr;
      absl::call_once(between_once_, [this] {
        between_ = RowRotation::Between(rope_, computed_at_, wanted_at_);
      });
      return &*between_;
    case KForm::kBeforeRope:
      absl::call_once(apply_once_, [this] {
        apply_ = RowRotation::Apply(rope_, wanted_at_);
      });
      return &*apply_;
  }
  KDN_CHECK(false, "form of K out of range");
  return nullptr;
}

}  // namespace kdn::codec
