#include "transfer/health_book.h"

namespace kdn::transfer {

void HealthBook::OnAsk(const NodeId& peer, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  peers_[peer].OnAsk(now);
}

void HealthBook::OnBegin(const NodeId& peer, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  peers_[peer].OnBegin(now);
}

void HealthBook::OnAnswer(const NodeId& peer, absl::Time began,
                          absl::Time now) {
  absl::MutexLock lock(&mutex_);
  peers_[peer].OnAnswer(began, now);
}

void HealthBook::OnProgress(const NodeId& peer, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  peers_[peer].OnProgress(now);
}

void HealthBook::OnEnd(const NodeId& peer, delivery::FetchEnd end,
                       bool answered, absl::Time began, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  peers_[peer].OnEnd(end, answered, began, now);
}

delivery::PeerGrades HealthBook::GradesAt(absl::Time now) const {
  absl::MutexLock lock(&mutex_);
  delivery::PeerGrades grades;
  for (const auto& [id, health] : peers_) {
    const delivery::PeerGrade grade = health.GradeAt(now);
    if (grade.is_failing || grade.latency) grades.emplace(id, grade);
  }
  return grades;
}

}  // namespace kdn::transfer
