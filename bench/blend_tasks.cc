#include "bench/blend_tasks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kv/check.h"
#include "kv/mix.h"

namespace kdn::bench {
namespace {

constexpr const char* kFemaleNames[] = {
    "Alice", "Amy",       "Anna",  "Barbara", "Carol", "Claire",
    "Diana", "Elizabeth", "Emily", "Emma",    "Helen", "Jane",
    "Julia", "Karen",     "Laura", "Linda",   "Lisa",  "Lucy",
    "Mary",  "Nancy",     "Rose",  "Ruth",    "Sarah", "Susan"};
constexpr const char* kMaleNames[] = {
    "Andrew", "Anthony", "Arthur", "Brian",   "Charles", "Daniel",  "David",
    "Edward", "Frank",   "George", "Henry",   "Jack",    "James",   "John",
    "Joseph", "Kevin",   "Mark",   "Martin",  "Matthew", "Michael", "Oliver",
    "Oscar",  "Paul",    "Peter",  "Richard", "Robert",  "Simon",   "Steven",
    "Thomas", "Walter",  "William"};
constexpr const char* kSurnames[] = {
    "Adams",    "Allen",    "Anderson", "Baker",   "Bell",     "Brown",
    "Campbell", "Carter",   "Clark",    "Collins", "Cook",     "Cooper",
    "Davis",    "Evans",    "Gray",     "Green",   "Hall",     "Harris",
    "Hill",     "Howard",   "Jackson",  "Johnson", "Jones",    "Kelly",
    "King",     "Lee",      "Lewis",    "Miller",  "Mitchell", "Moore",
    "Morgan",   "Morris",   "Nelson",   "Parker",  "Phillips", "Reed",
    "Roberts",  "Robinson", "Scott",    "Smith",   "Stewart",  "Taylor",
    "Turner",   "Walker",   "Ward",     "Watson",  "White",    "Wilson",
    "Wood",     "Wright",   "Young"};
constexpr const char* kCities[] = {
    "Amsterdam", "Athens",    "Atlanta",   "Bangkok",   "Barcelona",
    "Beijing",   "Berlin",    "Boston",    "Brussels",  "Cairo",
    "Cambridge", "Chicago",   "Dallas",    "Delhi",     "Denver",
    "Dublin",    "Edinburgh", "Florence",  "Geneva",    "Hamburg",
    "Houston",   "Jerusalem", "London",    "Madrid",    "Manchester",
    "Melbourne", "Milan",     "Montreal",  "Moscow",    "Munich",
    "Oslo",      "Oxford",    "Paris",     "Phoenix",   "Prague",
    "Rome",      "Seattle",   "Singapore", "Stockholm", "Sydney",
    "Tokyo",     "Toronto",   "Vancouver", "Venice",    "Vienna",
    "Warsaw"};
constexpr const char* kCodeNames[] = {"Bear", "Dragon", "Eagle", "Falcon",
                                      "Fox",  "Hawk",   "Lion",  "Tiger",
                                      "Wolf", "Raven",  "Snake", "Shark"};
constexpr const char* kDeeds[] = {
    "bought a garden",   "cleaned the harbour", "closed the office",
    "painted a fence",   "read the letters",    "repaired the clock",
    "sold a small boat", "visited the library", "won the first prize"};
constexpr const char* kFillers[] = {"The notes were copied in the morning.",
                                    "A clerk keeps this page in a grey box.",
                                    "The meeting took less than an hour.",
                                    "It rained for most of that week.",
                                    "Nobody has changed the record since then.",
                                    "More can be found in the second volume.",
                                    "The paper was signed at the front desk.",
                                    "Two people have read this report so far."};

// The words that are one token behind a space.
std::vector<std::string> SingleTokens(
    absl::FunctionRef<bool(const std::string&)> is_token,
    std::initializer_list<absl::Span<const char* const>> lists) {
  std::vector<std::string> single;
  for (const auto& list : lists) {
    for (const char* word : list) {
      if (is_token(absl::StrCat(" ", word))) single.emplace_back(word);
    }
  }
  return single;
}

std::vector<std::string> Strings(absl::Span<const char* const> words) {
  return {words.begin(), words.end()};
}

}  // namespace

std::string_view NameOf(BlendTask task) {
  switch (task) {
    case BlendTask::kLocal:
      return "local";
    case BlendTask::kSurname:
      return "surname";
    case BlendTask::kPronoun:
      return "pronoun";
    case BlendTask::kAlias:
      return "alias";
  }
  KDN_CHECK(false, "a task has a name");
  return {};
}

absl::StatusOr<BlendCases> BlendCases::Create(
    absl::FunctionRef<bool(const std::string&)> is_token, uint64_t seed) {
  BlendCases cases(seed);
  cases.first_names_ = SingleTokens(is_token, {kFemaleNames, kMaleNames});
  cases.male_names_ = SingleTokens(is_token, {kMaleNames});
  cases.surnames_ = SingleTokens(is_token, {kSurnames});
  cases.cities_ = SingleTokens(is_token, {kCities});
  cases.code_names_ = SingleTokens(is_token, {kCodeNames});
  for (const Words* words :
       {&cases.first_names_, &cases.male_names_, &cases.surnames_,
        &cases.cities_, &cases.code_names_}) {
    if (words->size() < kDocumentsMax) {
      return absl::FailedPreconditionError(
          "the tokenizer splits the names and cities of the questions into "
          "several tokens each: measure this model on texts alone");
    }
  }
  return cases;
}

// SplitMix64 (Steele et al., 2014).
uint64_t BlendCases::Next() {
  state_ += kMixStep;
  return Mix(state_);
}

BlendCases::Words BlendCases::Sample(Words words, int count) {
  KDN_CHECK(count <= static_cast<int>(words.size()), "there are enough words");
  for (int i = 0; i < count; ++i) {
    std::swap(words[i], words[i + Next() % (words.size() - i)]);
  }
  words.resize(static_cast<size_t>(count));
  return words;
}

std::string BlendCases::Filler(int sentences) {
  return absl::StrJoin(Sample(Strings(kFillers), sentences), " ");
}

BlendCase BlendCases::Draw(BlendTask task, int documents) {
  KDN_CHECK(documents >= 1 && documents <= kDocumentsMax,
            "a number of documents");
  const Words first = Sample(
      task == BlendTask::kPronoun ? male_names_ : first_names_, documents);
  const Words last = Sample(surnames_, documents);
  const Words cities = Sample(cities_, documents);
  const Words codes = Sample(code_names_, documents);
  const Words deeds = Sample(Strings(kDeeds), documents);
  BlendCase drawn;
  for (int i = 0; i < documents; ++i) {
    const std::string person = absl::StrCat(first[i], " ", last[i]);
    BlendQuestion question{absl::StrCat(person, " was born in"), cities[i],
                           cities};
    switch (task) {
      case BlendTask::kLocal:
        drawn.chunks.push_back(absl::StrCat("# ", person, "\n", person,
                                            " was born in ", cities[i], ". ",
                                            Filler(2), "\n\n"));
        break;
      case BlendTask::kSurname:
        drawn.chunks.push_back(
            absl::StrCat(Filler(1), " ", person, " ", deeds[i], ".\n\n"));
        question = {absl::StrCat("The person is ", first[i]), last[i], last};
        break;
      case BlendTask::kPronoun:
        drawn.chunks.push_back(
            absl::StrCat(Filler(1), " This document is about ", person, ".\n"));
        drawn.chunks.push_back(absl::StrCat("He was born in ", cities[i], ". ",
                                            Filler(1), "\n\n"));
        break;
      case BlendTask::kAlias:
        drawn.chunks.push_back(absl::StrCat(person, " is also called Agent ",
                                            codes[i], ". ", Filler(1), "\n"));
        drawn.chunks.push_back(absl::StrCat("Agent ", codes[i], " was born in ",
                                            cities[i], ". ", Filler(1),
                                            "\n\n"));
        break;
    }
    drawn.questions.push_back(std::move(question));
  }
  return drawn;
}

}  // namespace kdn::bench
