#include "kv/waiting_line.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "kv/check.h"

namespace kdn {

absl::Status WaitingLine::Add(const AdmissionRequest& request) {
  KDN_CHECK(!places_.contains(request.id), "a request waits once");
  ClassLine& line = lines_[request.work_class];
  if (line.size >= waiting_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(line.size, " requests wait already: try again later"));
  }
  const auto [known, is_new] =
      line.by_id.try_emplace(request.requester, line.turns.end());
  if (is_new) {
    line.turns.push_back(Requester{request.requester, {}});
    known->second = std::prev(line.turns.end());
  }
  const Turns::iterator requester = known->second;
  requester->waiting.push_back(request);
  ++line.size;
  const uint64_t arrival = arrivals_++;
  places_.emplace(
      request.id,
      Place{requester, std::prev(requester->waiting.end()), arrival});
  deadlines_.emplace(std::pair(request.deadline, arrival), request.id);
  return absl::OkStatus();
}

const AdmissionRequest* WaitingLine::First(WorkClass work_class) const {
  const Turns& turns = lines_[work_class].turns;
  return turns.empty() ? nullptr : &turns.front().waiting.front();
}

AdmissionRequest WaitingLine::TakeFirst(WorkClass work_class) {
  KDN_CHECK(First(work_class) != nullptr, "no request of this class waits");
  Turns& turns = lines_[work_class].turns;
  const bool is_last = turns.front().waiting.size() == 1;
  const AdmissionRequest first = Extract(turns.front().waiting.front().id);
  if (!is_last) turns.splice(turns.end(), turns, turns.begin());
  return first;
}

bool WaitingLine::Remove(AdmissionId id) {
  if (!places_.contains(id)) return false;
  Extract(id);
  return true;
}

std::vector<AdmissionRequest> WaitingLine::TakeExpired(absl::Time now) {
  std::vector<AdmissionRequest> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first.first <= now) {
    expired.push_back(Extract(deadlines_.begin()->second));
  }
  return expired;
}

AdmissionRequest WaitingLine::Extract(AdmissionId id) {
  const auto found = places_.find(id);
  KDN_CHECK(found != places_.end(), "no such request waits");
  const Place place = found->second;
  const AdmissionRequest request = *place.request;
  places_.erase(found);
  deadlines_.erase({request.deadline, place.arrival});
  ClassLine& line = lines_[request.work_class];
  --line.size;
  place.requester->waiting.erase(place.request);
  if (place.requester->waiting.empty()) {
    line.by_id.erase(request.requester);
    line.turns.erase(place.requester);
  }
  return request;
}

void WaitingLine::CheckInvariants() const {
  size_t total = 0;
  for (const WorkClass work_class : kWorkClasses) {
    const ClassLine& line = lines_[work_class];
    KDN_CHECK(line.size <= waiting_max_, "a line is bounded");
    KDN_CHECK(line.by_id.size() == line.turns.size(),
              "a requester has one place among the turns");
    size_t in_line = 0;
    for (const Requester& requester : line.turns) {
      KDN_CHECK(!requester.waiting.empty(), "a requester without a request");
      KDN_CHECK(&*line.by_id.at(requester.id) == &requester,
                "a requester is found by its id");
      uint64_t arrivals = 0;
      for (const AdmissionRequest& request : requester.waiting) {
        const Place& place = places_.at(request.id);
        KDN_CHECK(&*place.request == &request, "a request is found by its id");
        KDN_CHECK(place.arrival >= arrivals, "a requester is served in order");
        KDN_CHECK(deadlines_.contains({request.deadline, place.arrival}),
                  "every request has its deadline");
        arrivals = place.arrival;
      }
      in_line += requester.waiting.size();
    }
    KDN_CHECK(in_line == line.size, "the size of a line is right");
    total += in_line;
  }
  KDN_CHECK(total == places_.size() && total == deadlines_.size(),
            "no request is counted twice");
}

}  // namespace kdn
