#include "rpc/tls/stream.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kv/check.h"
#include "rpc/tls/openssl.h"

namespace kdn::rpc {
namespace {

// Most bytes that one record of TLS holds.
constexpr size_t kRecordBytes = SSL3_RT_MAX_PLAIN_LENGTH;
// Encrypted bytes that go to the inner stream with one write.
constexpr size_t kBatchBytes = 128u << 10;
// Memory for a batch: the last record begins inside it.
constexpr size_t kBatchRoom = kBatchBytes + 2 * kRecordBytes;
// Most encrypted bytes that one read of the inner stream takes: first, and
// while many bytes come.
constexpr size_t kFillBytesMin = 4u << 10;
constexpr size_t kFillBytesMax = 128u << 10;
// Most encrypted bytes of answers that OpenSSL gives by itself.
constexpr size_t kAnswersMax = 64u << 10;
// After so many decrypted bytes, other events of the loop have their turn.
constexpr size_t kTurnBytes = 1u << 20;

kj::Exception ExceptionOf(kj::Exception::Type type, const std::string& text) {
  return kj::Exception(type, __FILE__, __LINE__, kj::str(text.c_str()));
}

kj::Exception Broken() {
  return ExceptionOf(
      kj::Exception::Type::DISCONNECTED,
      absl::StrCat("the TLS connection broke: ", TakeOpensslError()));
}

kj::Exception HungUp() {
  return ExceptionOf(kj::Exception::Type::DISCONNECTED,
                     "the other side hung up during the TLS handshake");
}

bool IsNumeric(const std::string& host) {
  in6_addr six;
  in_addr four;
  return inet_pton(AF_INET, host.c_str(), &four) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &six) == 1;
}

// Whether TLS can begin with this byte: it is the type of a handshake message,
// or of an alert.
bool BeginsTls(kj::byte first) {
  return first == SSL3_RT_HANDSHAKE || first == SSL3_RT_ALERT;
}

}  // namespace

struct TlsIoStream::Bio {
  static TlsIoStream& StreamOf(BIO* bio) {
    return *static_cast<TlsIoStream*>(BIO_get_data(bio));
  }
  static int Read(BIO* bio, char* to, int size) {
    TlsIoStream& stream = StreamOf(bio);
    BIO_clear_retry_flags(bio);
    const size_t count = std::min<size_t>(static_cast<size_t>(size),
                                          stream.in_end_ - stream.in_begin_);
    if (count == 0) {
      if (stream.in_closed_) return 0;
      BIO_set_retry_read(bio);
      return -1;
    }
    std::memcpy(to, stream.in_.begin() + stream.in_begin_, count);
    stream.in_begin_ += count;
    return static_cast<int>(count);
  }
  static int Write(BIO* bio, const char* from, int size) {
    std::vector<kj::byte>& out = StreamOf(bio).out_;
    BIO_clear_retry_flags(bio);
    const auto* const bytes = reinterpret_cast<const kj::byte*>(from);
    out.insert(out.end(), bytes, bytes + size);
    return size;
  }
  // NOLINTNEXTLINE(google-runtime-int)
  static long Control(BIO*, int command, long, void*) {
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static BIO* New(TlsIoStream* stream) {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made =
          BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kj stream");
      KDN_CHECK(made != nullptr, "OpenSSL has no memory");
      BIO_meth_set_read(made, Read);
      BIO_meth_set_write(made, Write);
      BIO_meth_set_ctrl(made, Control);
      return made;
    }();
    BIO* const bio = BIO_new(method);
    KDN_CHECK(bio != nullptr, "OpenSSL has no memory");
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    return bio;
  }
};

TlsIoStream::TlsIoStream(kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context)
    : inner_(kj::mv(inner)),
      ssl_(SSL_new(&context), SSL_free),
      fill_bytes_(kFillBytesMin),
      fill_(kj::Promise<void>(kj::READY_NOW).fork()),
      flush_(kj::Promise<void>(kj::READY_NOW).fork()) {
  KDN_CHECK(ssl_ != nullptr, "OpenSSL has no memory");
  BIO* const bio = Bio::New(this);
  SSL_set_bio(ssl_.get(), bio, bio);
  // Nobody resumes a session, so a server sends no tickets.
  SSL_set_options(ssl_.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_set_num_tickets(ssl_.get(), 0);
  // Idle connections hold no buffers of records.
  SSL_set_mode(ssl_.get(), SSL_MODE_RELEASE_BUFFERS);
}

TlsIoStream::~TlsIoStream() noexcept = default;

kj::Promise<kj::Own<TlsIoStream>> TlsIoStream::Accept(
    kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context) {
  auto stream = kj::heap<TlsIoStream>(kj::mv(inner), context);
  SSL_set_accept_state(stream->ssl_.get());
  auto handshake = stream->Handshake();
  return handshake.then(
      [stream = kj::mv(stream)]() mutable { return kj::mv(stream); });
}

kj::Promise<kj::Own<TlsIoStream>> TlsIoStream::Connect(
    kj::Own<kj::AsyncIoStream> inner, SSL_CTX& context,
    const std::string& host) {
  auto stream = kj::heap<TlsIoStream>(kj::mv(inner), context);
  stream->host_ = host;
  SSL* const ssl = stream->ssl_.get();
  SSL_set_connect_state(ssl);
  SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  X509_VERIFY_PARAM* const verify = SSL_get0_param(ssl);
  const bool set =
      IsNumeric(host) ? X509_VERIFY_PARAM_set1_ip_asc(verify, host.c_str()) == 1
                      : X509_VERIFY_PARAM_set1_host(verify, host.data(),
                                                    host.size()) == 1 &&
                            SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
  if (!set) {
    return ExceptionOf(kj::Exception::Type::FAILED,
                       absl::StrCat("'", host, "' is not a host name"));
  }
  auto handshake = stream->Handshake();
  return handshake.then(
      [stream = kj::mv(stream)]() mutable { return kj::mv(stream); });
}

std::string TlsIoStream::peer_name() const {
  const Owned<X509> certificate(SSL_get1_peer_certificate(ssl_.get()));
  return certificate == nullptr ? "" : CommonNameOf(*certificate);
}

template <typename T>
kj::Promise<T> TlsIoStream::Fail(kj::Exception why) {
  return Flush()
      .catch_([](kj::Exception&&) {})
      .then([why = kj::mv(why)]() -> kj::Promise<T> { return kj::cp(why); });
}

kj::Promise<void> TlsIoStream::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return Flush();
  if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) {
    return Fail<void>(HandshakeError());
  }
  return Flush()
      .then([this] { return Fill(); })
      .catch_([](kj::Exception&& broken) -> kj::Promise<void> {
        if (broken.getType() == kj::Exception::Type::DISCONNECTED) {
          return HungUp();
        }
        return kj::mv(broken);
      })
      .then([this]() -> kj::Promise<void> {
        if (in_closed_) return HungUp();
        return Handshake();
      });
}

kj::Exception TlsIoStream::HandshakeError() const {
  const auto failed = [](const std::string& text) {
    return ExceptionOf(kj::Exception::Type::FAILED, text);
  };
  const auto verdict = SSL_get_verify_result(ssl_.get());
  if (verdict != X509_V_OK) {
    ERR_clear_error();
    return failed(absl::StrCat("the certificate of the other side is refused: ",
                               CertificateProblem(verdict, host_)));
  }
  const std::string reason = TakeOpensslError();
  if (!BeginsTls(first_byte_)) {
    return failed("the other side does not speak TLS");
  }
  return failed(absl::StrCat("the TLS handshake failed: ", reason));
}

kj::Promise<size_t> TlsIoStream::tryRead(void* buffer, size_t bytes_min,
                                         size_t bytes_max) {
  return ReadMore(static_cast<kj::byte*>(buffer), bytes_min, bytes_max, 0);
}

kj::Promise<size_t> TlsIoStream::ReadMore(kj::byte* to, size_t bytes_min,
                                          size_t bytes_max, size_t done) {
  const size_t begin = done;
  while (done < bytes_max) {
    if (done - begin >= kTurnBytes) {
      if (done >= bytes_min) break;
      return kj::evalLater([this, to, bytes_min, bytes_max, done] {
        return ReadMore(to, bytes_min, bytes_max, done);
      });
    }
    ERR_clear_error();
    size_t got = 0;
    const size_t waiting = out_.size();
    const int result =
        SSL_read_ex(ssl_.get(), to + done, bytes_max - done, &got);
    done += got;
    // Nobody needs many answers of TLS itself. A stranger could ask for them,
    // and not read them.
    answered_ += out_.size() - waiting;
    if (answered_ > kAnswersMax) return Fail<size_t>(Broken());
    if (result == 1) continue;
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_ZERO_RETURN || in_closed_) break;
    if (error != SSL_ERROR_WANT_READ) return Fail<size_t>(Broken());
    if (done >= bytes_min) break;
    return Fill().then([this, to, bytes_min, bytes_max, done] {
      return ReadMore(to, bytes_min, bytes_max, done);
    });
  }
  return done;
}

kj::Promise<void> TlsIoStream::Fill() {
  if (filling_) return fill_.addBranch();
  if (in_.size() != fill_bytes_) in_ = kj::heapArray<kj::byte>(fill_bytes_);
  filling_ = true;
  in_begin_ = in_end_ = 0;
  fill_ = inner_->tryRead(in_.begin(), 1, in_.size())
              .then(
                  [this](size_t bytes) -> kj::Promise<void> {
                    OnFilled(bytes);
                    return kj::READY_NOW;
                  },
                  [this](kj::Exception&& broken) -> kj::Promise<void> {
                    filling_ = false;
                    in_closed_ = true;
                    return kj::mv(broken);
                  })
              .fork();
  return fill_.addBranch();
}

void TlsIoStream::OnFilled(size_t bytes) {
  filling_ = false;
  in_end_ = bytes;
  in_closed_ = bytes == 0;
  if (in_closed_) return;
  if (!std::exchange(has_begun_, true)) first_byte_ = in_[0];
  // A full buffer means that many bytes come. A stranger gets a small buffer.
  if (bytes == in_.size() && SSL_is_init_finished(ssl_.get()) == 1) {
    fill_bytes_ = std::min(4 * fill_bytes_, kFillBytesMax);
  } else if (bytes < in_.size() / 8) {
    fill_bytes_ = std::max(fill_bytes_ / 4, kFillBytesMin);
  }
}

kj::Promise<void> TlsIoStream::write(const void* buffer, size_t size) {
  return WriteMore(
      {kj::arrayPtr(static_cast<const kj::byte*>(buffer), size), nullptr});
}

kj::Promise<void> TlsIoStream::write(Pieces pieces) {
  return WriteMore({nullptr, pieces});
}

kj::Promise<void> TlsIoStream::WriteMore(Plain plain) {
  while (plain.first.size() > 0 || plain.rest.size() > 0) {
    if (out_.size() >= kBatchBytes) {
      return Flush().then([this, plain] { return WriteMore(plain); });
    }
    if (!WriteRecord(&plain)) return Fail<void>(Broken());
  }
  return Flush();
}

bool TlsIoStream::WriteRecord(Plain* plain) {
  // Small pieces are copied, so that they share a record.
  kj::byte gathered[kRecordBytes];
  size_t size = 0;
  kj::ArrayPtr<const kj::byte> record;
  while (true) {
    kj::ArrayPtr<const kj::byte>& first = plain->first;
    const bool whole = size == 0 && first.size() >= kRecordBytes;
    const size_t count = std::min(first.size(), kRecordBytes - size);
    if (whole) {
      record = first.slice(0, count);
    } else {
      std::copy(first.begin(), first.begin() + count, gathered + size);
      size += count;
      record = kj::arrayPtr(gathered, size);
    }
    first = first.slice(count, first.size());
    if (whole || size == kRecordBytes || plain->rest.size() == 0) break;
    first = plain->rest[0];
    plain->rest = plain->rest.slice(1, plain->rest.size());
  }
  if (record.size() == 0) return true;  // all pieces were empty
  // A full record announces more.
  if (record.size() == kRecordBytes) out_.reserve(kBatchRoom);
  ERR_clear_error();
  encrypted_ += record.size();
  if (encrypted_ >= key_bytes_ && SSL_version(ssl_.get()) >= TLS1_3_VERSION) {
    encrypted_ = 0;
    if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) {
      return false;
    }
  }
  size_t written = 0;
  return SSL_write_ex(ssl_.get(), record.begin(), record.size(), &written) == 1;
}

kj::Promise<void> TlsIoStream::Flush() {
  flush_ = flush_.addBranch()
               .then([this]() -> kj::Promise<void> {
                 if (out_.empty()) return kj::READY_NOW;
                 answered_ = 0;
                 std::vector<kj::byte> bytes = std::exchange(out_, {});
                 auto sending = inner_->write(bytes.data(), bytes.size());
                 return sending.attach(std::move(bytes));
               })
               .fork();
  return flush_.addBranch();
}

void TlsIoStream::shutdownWrite() {
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  // A broken connection has nothing to shut down.
  shutdown_ = Flush()
                  .then([this] { inner_->shutdownWrite(); })
                  .eagerlyEvaluate([](kj::Exception&&) {});
}

}  // namespace kdn::rpc
