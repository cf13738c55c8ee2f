/* Codecs outside the tree: the C ABI between MetaProtocol (the host) and a shared library with a
 * codec (the library). metaprotocol/codec.hpp makes a class of it, docs/writing-a-codec.md
 * explains.
 *
 * The library exports one function, `metaprotocol_codec`, which returns one table of functions that
 * lives for ever.
 *
 * Versions. Structs grow at their ends only, and each that may grow begins with `size`, as its
 * owner was compiled: the library for its table, the host for everything that it passes in. Nobody
 * reads or writes behind `size`. Functions that a table does not have, or that are null, mean "no".
 * METAPROTOCOL_CODEC_ABI changes when that is not enough.
 *
 * Threads. All functions but `create` and `destroy` are called by many threads at once for one
 * codec object; only a `state` is one thread's alone. It is used with the codec that made it, which lives as long.
 *
 * Memory. Views are valid during the call. Nothing may be thrown. */
#ifndef METAPROTOCOL_CODEC_H_
#define METAPROTOCOL_CODEC_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define METAPROTOCOL_CODEC_ABI 1u

/* --- structs that never grow */

typedef struct metaprotocol_bytes {
  const char* data;
  size_t size;
} metaprotocol_bytes;

/* Takes bytes as often as it is called. */
typedef struct metaprotocol_sink {
  void* context;
  void (*append)(void* context, const char* data, size_t size);
} metaprotocol_sink;

typedef struct metaprotocol_mutation {
  int32_t kind;     /* metaprotocol_mutation_kind */
  int32_t required; /* not 0: of a request that has a place for it, but no room, encode returns 0 */
  metaprotocol_bytes key;
  metaprotocol_bytes value;
} metaprotocol_mutation;

/* --- values */

enum metaprotocol_direction { METAPROTOCOL_REQUEST = 0, METAPROTOCOL_RESPONSE = 1 };

enum metaprotocol_kind {
  METAPROTOCOL_KIND_REQUEST = 0,         /* expects exactly one reply */
  METAPROTOCOL_KIND_ONE_WAY = 1,         /* is forwarded, never answered */
  METAPROTOCOL_KIND_RESPONSE = 2,        /* the reply to the request with the same id */
  METAPROTOCOL_KIND_HEARTBEAT = 3,       /* is answered by heartbeat_reply, never forwarded */
  METAPROTOCOL_KIND_HEARTBEAT_REPLY = 4, /* is swallowed */
  METAPROTOCOL_KIND_GO_AWAY = 5,         /* its sender wants no more requests here */
  METAPROTOCOL_KIND_OTHER = 6,           /* well-formed, counted, and dropped */
  /* Of streams, only with METAPROTOCOL_STREAMS: all that have the same stream_id, until both sides
   * have ended or one has reset. */
  METAPROTOCOL_KIND_STREAM_OPEN = 7,  /* has the metadata, like a request */
  METAPROTOCOL_KIND_STREAM_DATA = 8,  /* with end_stream: the last from this side */
  METAPROTOCOL_KIND_STREAM_END = 9,   /* this side sends no more */
  METAPROTOCOL_KIND_STREAM_RESET = 10, /* the stream is over on both sides */
  METAPROTOCOL_KIND_STREAM_WINDOW = 11 /* its sender takes `window` more bytes */
};

enum metaprotocol_status {
  METAPROTOCOL_STATUS_OK = 0,
  METAPROTOCOL_STATUS_EXCEPTION = 1, /* the service's own */
  METAPROTOCOL_STATUS_ERROR = 2      /* the server or its protocol layer failed */
};

enum metaprotocol_decoded {
  METAPROTOCOL_NEED_MORE = 0,   /* not before there are `need` bytes in all */
  METAPROTOCOL_MESSAGE = 1,     /* the message is filled in */
  METAPROTOCOL_UNDECODABLE = 2, /* it is broken, but `length` says where the next one begins */
  METAPROTOCOL_TOO_LARGE = 3,   /* over max_message_bytes; `length` if it is known, else 0 */
  METAPROTOCOL_ERROR = 4        /* not this protocol: the connection ends */
};

enum metaprotocol_mutation_kind {
  METAPROTOCOL_SET = 0,           /* in place of every value of the key */
  METAPROTOCOL_ADD_IF_ABSENT = 1, /* unless the key is there */
  METAPROTOCOL_REMOVE = 2
};

/* One bit each. Unknown bits are an error: what the host does not know, it cannot honour. */
enum metaprotocol_trait {
  METAPROTOCOL_MULTIPLEXED = 1,      /* requests at once on one connection, replies in any order */
  METAPROTOCOL_ORDERED_REPLIES = 2,  /* clients send ahead and expect replies in order */
  METAPROTOCOL_STATEFUL = 4,         /* connections remember who uses them (login, transaction) */
  METAPROTOCOL_MUTATION_IN_HEAD = 8, /* mutations need no more than what decode needs */
  METAPROTOCOL_WHOLE_TO_ENCODE = 16, /* encode needs the whole message (a checksum) */
  METAPROTOCOL_METADATA_IN_HEAD = 32, /* decode tells all metadata before the body has come */
  METAPROTOCOL_STREAMS = 64           /* some messages are of streams; needs ids */
};

/* --- structs that may grow */

typedef struct metaprotocol_message {
  size_t size;
  uint64_t length;               /* on the wire, head and body */
  uint64_t id;                   /* correlation id; 0 where there is none */
  uint64_t tag;                  /* 63 bits of the codec's own for encode and reply */
  uint64_t timeout_us;           /* requests: how long the client waits; 0: not told */
  metaprotocol_bytes reply_name; /* part of the bytes; comes back in metaprotocol_reply_context */
  int32_t status_code;           /* responses: the protocol's own number, 0 where it has none */
  uint8_t kind;                  /* metaprotocol_kind */
  uint8_t status;                /* metaprotocol_status; responses */
  uint8_t reserved[2];
  uint64_t stream_id;            /* what the peer calls the stream; 0: none */
  uint64_t window;               /* METAPROTOCOL_KIND_STREAM_WINDOW */
  int32_t end_stream;            /* nothing more of the stream comes from this side */
  int32_t reserved2;
} metaprotocol_message;

/* Takes metadata. `key` counts in metaprotocol_codec_table.keys; others have the names that peers
 * gave them. Values in the message are kept as views, others are copied. */
typedef struct metaprotocol_metadata {
  size_t size;
  void* context;
  int32_t (*wants)(void* context, uint32_t key); /* whether anybody looks at it */
  void (*set)(void* context, uint32_t key, metaprotocol_bytes value);
  void (*set_named)(void* context, metaprotocol_bytes name, metaprotocol_bytes value);
} metaprotocol_metadata;

typedef struct metaprotocol_decode_options {
  size_t size;
  uint64_t max_message_bytes;
  int32_t allow_partial; /* a message may be returned before its body has come */
  int32_t reserved;
} metaprotocol_decode_options;

typedef struct metaprotocol_result {
  size_t size;
  uint64_t need;
  const char* error; /* lives for ever */
  int32_t status;    /* metaprotocol_decoded */
  int32_t reserved;
} metaprotocol_result;

typedef struct metaprotocol_encode_options {
  size_t size;
  uint64_t id;         /* stands in place of the message's */
  uint64_t timeout_us; /* likewise, if it is not 0 and the message has one */
  const metaprotocol_mutation* mutations;
  size_t mutation_count;
  uint64_t stream_id; /* stands in place of the message's */
} metaprotocol_encode_options;

/* How a message goes on behind what encode appended: with its bytes [head, length - tail_size),
 * unchanged, and then with `tail`. */
typedef struct metaprotocol_encoded {
  size_t size;
  uint64_t head;
  uint8_t tail_size;
  char tail[8]; /* only if the message is whole */
  uint8_t reserved[7];
} metaprotocol_encoded;

typedef struct metaprotocol_reply_context {
  size_t size;
  uint64_t id;
  uint64_t tag;
  metaprotocol_bytes name; /* metaprotocol_message.reply_name */
  uint64_t stream_id;
} metaprotocol_reply_context;

typedef struct metaprotocol_codec_table {
  uint32_t abi;  /* METAPROTOCOL_CODEC_ABI */
  uint32_t size; /* sizeof(metaprotocol_codec_table), as the library was compiled */
  const char* name;
  const char* build;       /* for people: tells two builds of one codec apart; may be null */
  int32_t id_bits;         /* width of correlation ids: 0, 32 or 64 */
  uint32_t traits;         /* metaprotocol_trait, added */
  const char* const* keys; /* metadata keys with a fixed meaning */
  uint64_t key_count;

  /* A codec with these options (JSON, may be empty); null, and a text for people, if they are
   * wrong. Called once for each configuration. */
  void* (*create)(metaprotocol_bytes options, const metaprotocol_sink* error);

  /* The message that begins at the first byte. */
  void (*decode)(void* codec, void* state, int32_t direction, metaprotocol_bytes bytes,
                 const metaprotocol_decode_options* options, metaprotocol_message* message,
                 const metaprotocol_metadata* metadata, metaprotocol_result* result);

  /* The beginning of the message with another id and with mutations, which are left out, all of
   * them, where the message cannot carry them and none is required. 0: it cannot be written, and
   * goes nowhere; its call is answered with "malformed", or "bad_response". */
  int32_t (*encode)(void* codec, int32_t direction, const metaprotocol_message* message,
                    metaprotocol_bytes bytes, const metaprotocol_encode_options* options,
                    const metaprotocol_sink* out, metaprotocol_encoded* encoded);

  /* The proxy's own answer. `reply` is its name, such as "no_route". This one and those below
   * return 0 if the protocol has no such message. */
  int32_t (*reply)(void* codec, const metaprotocol_reply_context* request, const char* reply,
                   metaprotocol_bytes text, const metaprotocol_sink* out);

  /* All below may be null. */
  void (*destroy)(void* codec);
  void* (*new_state)(void* codec, int32_t direction); /* of one direction of one connection */
  void (*delete_state)(void* codec, void* state);
  int32_t (*heartbeat_reply)(void* codec, int32_t direction, const metaprotocol_message* heartbeat,
                             metaprotocol_bytes bytes, const metaprotocol_sink* out);
  int32_t (*ping)(void* codec, uint64_t id, const metaprotocol_sink* out);
  int32_t (*go_away)(void* codec, const metaprotocol_reply_context* last,
                     const metaprotocol_sink* out);
  /* Ends a stream for a reason of the proxy's own, named like a reply. `stream` has the ids as the
   * side knows them that is written to: METAPROTOCOL_REQUEST is the server. */
  int32_t (*reset_stream)(void* codec, const metaprotocol_reply_context* stream, int32_t to,
                          const char* reason, metaprotocol_bytes text,
                          const metaprotocol_sink* out);
  /* Lets the sender of a stream go on by so many bytes. */
  int32_t (*grant_window)(void* codec, const metaprotocol_reply_context* stream, int32_t to,
                          uint64_t bytes, const metaprotocol_sink* out);
} metaprotocol_codec_table;

/* What the library exports. */
__attribute__((visibility("default"))) const metaprotocol_codec_table* metaprotocol_codec(void);

#ifdef __cplusplus
}
#endif

#endif /* METAPROTOCOL_CODEC_H_ */
