#ifndef KDN_MODEL_TOKENIZER_BYTE_LEVEL_H_
#define KDN_MODEL_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kdn::model {

// GPT-2's printable stand-ins for bytes (Radford et al., 2019): a printable
// byte of Latin-1 stands for itself, and the other bytes have the characters
// from U+0100 on, in order.

// The stand-in characters of `bytes`, in UTF-8.
std::string ToStandIns(std::string_view bytes);
// The byte that a character stands for.
std::optional<uint8_t> ByteOfStandIn(char32_t character);

}  // namespace kdn::model

#endif  // KDN_MODEL_TOKENIZER_BYTE_LEVEL_H_
