@0xd18f4b6e93a2c705;
# Headers of the bulk plane: objects between nodes, over plain TCP. docs/protocol.md
# ("Between nodes") has the order of messages and bytes.
#
# A connection carries frames. A frame is a length (4 bytes, little-endian; a multiple
# of 8, at most frameBytesMax) and as many bytes of one Cap'n Proto message in the
# standard stream framing. Raw bytes of objects follow some frames; the frame says how
# many. Each side hangs up when it receives a malformed frame.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("kdn::rpc::peer");

const frameBytesMax :UInt32 = 8388608;

struct Status {
  code @0 :UInt16;  # The number of an absl::StatusCode.
  message @1 :Text;
}

struct MemberSettings {
  weight @0 :Float64;
  zone @1 :Text;  # Empty: none.
}

struct Introduction {
  # What two nodes compare before they exchange data: docs/protocol.md,
  # "Introductions and versions".
  cluster @0 :Text;  # The name in the configuration.
  node @1 :Text;     # The node that speaks.
  oldestVersion @2 :UInt32;
  newestVersion @3 :UInt32;
  replicas @4 :UInt32;
  shards @5 :UInt32;
  settings @6 :MemberSettings;      # Of the node that speaks.
  peerSettings @7 :MemberSettings;  # Of the node that is spoken to. Absent when it
                                    # is not on the speaker's list of members.
}

struct Hello {
  # The first frame in each direction. The caller speaks first.
  introduction @0 :Introduction;
  to @1 :Text;        # The node that the speaker believes it speaks to.
  status @2 :Status;  # In the server's answer: ok, or why the server hangs up.
}

struct ChunkRef {
  key @0 :Data;
  placement @1 :Data;  # Not read. Versions before 5 needed it.
}

struct Request {
  deadlineMs @0 :UInt32;  # Counts from the moment when the server reads the frame.
  union {
    fetch @1 :Fetch;
    push @2 :Push;
    calibration @3 :Calibration;
    # Sent only to nodes of version 7 of the messages between nodes.
  }
}

struct Fetch {
  # Asks for a slice of chunks: half-open ranges of layers and KV heads.
  namespace @0 :Text;
  chunks @1 :List(ChunkRef);
  layerBegin @2 :UInt32;
  layerEnd @3 :UInt32;
  headBegin @4 :UInt32;
  headEnd @5 :UInt32;
  accept @6 :UInt8;   # The set of accepted levels: bit i is the level with number i.
  budget @7 :Budget;
  newestFormat @8 :UInt16 = 3;
  # The newest version of the object format that the caller reads. A copy of a newer
  # version is not sent: its item is unimplemented. The default is what nodes read
  # that do not set the field.
}

struct Budget {
  # Limits what the answer takes of the link. The server knows the sizes and errors of
  # all levels, and chooses the level of each layer within these limits.
  bytesMax @0 :UInt64;
  # Most bytes of streams in the whole answer. All bits set: no limit.
  bytesPerTokenMax @1 :Float64;
  # Bytes that the link carries while the engine prefills one token: prefilling is
  # faster than loading more bytes per token than this. 0: unknown.
  setupBytes @2 :UInt64;
  # Bytes that the link could carry in the time before the first byte arrives. The
  # comparison with prefilling adds them to the bytes to load.
  leadingChunks @3 :Bool;
  # True: chunks behind a chunk that is recomputed are of no use.
  levelsTooSlow @4 :UInt8;
  # Levels that the caller decodes more slowly than its engine prefills; bits as in
  # accept. A chunk is not sent if the copy keeps no other accepted level.
}

struct FetchItem {
  # One frame per chunk. Chunks come in groups: the frames of all chunks of a group,
  # each hit's frame followed by prefixBytes raw bytes (header and index of the
  # object). Then, for each layer of the slice, the raw streams of that layer, hit by
  # hit. The server ends a group when the next chunk has to wait for memory or a disk.
  status @0 :Status;
  # ok: a hit, or a chunk to recompute. notFound: a miss. Another code: why the copy
  # cannot be read.
  levels @1 :List(UInt8);  # One per layer of the slice: numbers of Level, kdn.capnp.
  tier @2 :UInt8;          # The number of a Tier of kdn.capnp.
  objectBytes @3 :UInt64;  # Of the whole object.
  prefixBytes @4 :UInt32;  # Of the object's header and index.
  streamBytes @5 :UInt64;  # Of the raw streams of all layers of the slice together.
  item @6 :UInt32;         # The index of the chunk in the request.
  endsGroup @7 :Bool;
  recompute @8 :Bool;
  # With status ok: the server has the chunk but does not send it, because the budget
  # does not allow it. Nothing follows the frame.
  version @9 :UInt64;
  # The version of a copy that the server has but cannot parse, so that the copy can
  # be checked. 0: there is no such copy.
}

struct Push {
  # Hands an object to the server. The server answers with PushGo. If that is ok, the
  # caller sends objectBytes raw bytes, and the server answers with PushDone.
  chunk @0 :ChunkRef;
  objectBytes @1 :UInt64;
  durability @2 :UInt8;  # The number of a Durability of kdn.capnp.
  ttlMs @3 :UInt64;      # The copy is not evicted for this time. 0: no promise.
}

struct Calibration {
  # Asks for the bytes of a calibration's file. The server answers with a
  # CalibrationItem.
  id @0 :Data;  # The SHA-256 of the file: 32 bytes.
}

struct CalibrationItem {
  status @0 :Status;  # notFound: the server does not have the calibration.
  bytes @1 :UInt64;   # With status ok: so many raw bytes follow the frame.
}

struct Refusal {
  # Answers a request that the server does not know, with unimplemented. Every answer
  # begins with its Status, so the caller reads a Refusal as the answer that it
  # expects. The connection stays open.
  status @0 :Status;
}

struct PushGo {
  status @0 :Status;
}

struct PushDone {
  status @0 :Status;
  version @1 :UInt64;  # Of the object that the server has.
  existed @2 :Bool;    # The server had an object of this key already, and keeps it.
}
