#ifndef KDN_MODEL_FILE_DIGEST_H_
#define KDN_MODEL_FILE_DIGEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "absl/types/span.h"

struct stat;

namespace kdn::model {

// A mapped file and its state when it was opened.
struct OpenFile {
  std::string path;
  const struct stat& state;
  absl::Span<const uint8_t> bytes;
};

// Returns the SHA-256 of a file's bytes. Does not read a file in the hub's
// cache, which names files by their SHA-256. Reads any other large file once
// per host: the digest is kept in a small file in `cache_directory`, which
// names the path, device, inode, size and times of the hashed file. Of several
// processes that start together, one hashes and the others wait. A cache that
// cannot be read or written is a warning in the log. An empty directory means
// no cache. `now` is the time of day: a file that has changed in the last two
// seconds is not cached. python/kdn/file_digest.py uses the same cache.
std::array<uint8_t, 32> FileDigest(const OpenFile& file,
                                   const std::string& cache_directory,
                                   absl::Time now);

// The directory of the cache of this user: below $XDG_CACHE_HOME or ~/.cache.
// Empty when neither is known.
std::string DigestCacheDirectory();

// Smaller files are hashed each time.
inline constexpr size_t kCachedBytesMin = size_t{64} << 20;

}  // namespace kdn::model

#endif  // KDN_MODEL_FILE_DIGEST_H_
