/* Filters outside the tree: the C ABI between MetaProtocol (the host) and a shared library with a
 * filter (the library). metaprotocol/filter.hpp makes a class of it, docs/writing-a-filter.md
 * explains.
 *
 * The library exports one function, `metaprotocol_filter`, which returns one table of functions
 * that lives for ever. Versions, sizes and memory are as for codecs, whose words for messages are
 * used here too: see metaprotocol/codec.h.
 *
 * Threads. All functions but `create` and `destroy` are called by many threads at once for one
 * filter object. A `request` is one thread's alone, and good during the call that it is passed to.
 */
#ifndef METAPROTOCOL_FILTER_H_
#define METAPROTOCOL_FILTER_H_

#include "codec.h" /* beside this file */

#ifdef __cplusplus
extern "C" {
#endif

#define METAPROTOCOL_FILTER_ABI 1u

/* What becomes of a request or a reply. Anything else, and an answer or a wait that was not told,
 * fails the request: it goes no further, and its client gets an error. */
enum metaprotocol_verdict {
  METAPROTOCOL_CONTINUE = 0,
  METAPROTOCOL_ANSWER = 1, /* the client gets what metaprotocol_filter_host.answer was told */
  METAPROTOCOL_WAIT = 2    /* on_request and on_timer: on_timer comes when the time is over */
};

/* One bit each. Unknown bits are an error: what the host does not know, it cannot honour. */
enum metaprotocol_filter_trait {
  METAPROTOCOL_CHANGES_REQUESTS = 1, /* `change` is used */
  METAPROTOCOL_WAITS = 2, /* on_request may say METAPROTOCOL_WAIT: it gets whole requests */
  METAPROTOCOL_CHANGES_REPLIES = 4 /* `change_reply` is used */
};

enum metaprotocol_end {
  METAPROTOCOL_END_REPLIED = 0,     /* with a server's reply */
  METAPROTOCOL_END_ANSWERED = 1,    /* with one of the proxy's, or of a filter's */
  METAPROTOCOL_END_SENT = 2,        /* it needs no reply and is on its way */
  METAPROTOCOL_END_DROPPED = 3,     /* it needs no reply and was not sent */
  METAPROTOCOL_END_CLIENT_GONE = 4, /* before there was a reply */
};

/* --- structs that may grow; `size` is the host's */

typedef struct metaprotocol_request_info {
  size_t size;
  uint64_t length;          /* of the message, head and body */
  uint64_t timeout_us;      /* how long its client waits, by its own word; 0: not told */
  metaprotocol_bytes route; /* its name */
  uint8_t kind;             /* metaprotocol_kind; larger: it opens a stream */
  uint8_t expects_reply;
  uint8_t reserved[6];
} metaprotocol_request_info;

typedef struct metaprotocol_response_info {
  size_t size;
  uint64_t length;
  int32_t status_code; /* the protocol's own number, 0 where it has none */
  uint8_t status;      /* metaprotocol_status */
  uint8_t reserved[3];
} metaprotocol_response_info;

typedef struct metaprotocol_end_info {
  size_t size;
  metaprotocol_bytes reply; /* ANSWERED, DROPPED: why, such as "denied" */
  metaprotocol_bytes host;  /* the address that was tried last; empty if none was */
  uint64_t request_bytes;
  uint64_t response_bytes;
  uint64_t duration_us;
  uint32_t attempts; /* on servers */
  uint8_t kind;      /* metaprotocol_end */
  uint8_t status;    /* metaprotocol_status; REPLIED */
  uint8_t reserved[2];
} metaprotocol_end_info;

/* What the host does for a filter. It lives for ever. Functions that say 0 (or -1) have done
 * nothing. */
typedef struct metaprotocol_filter_host {
  size_t size;

  /* --- within `create`, whose `setup` they take */
  /* The name of the codec. */
  metaprotocol_bytes (*protocol)(void* setup);
  /* A member of the options, as long as `create` runs: a text as it is, anything else as JSON. 0:
   * there is none. Where this is used, members that were not asked for are refused. */
  int32_t (*option)(void* setup, metaprotocol_bytes name, metaprotocol_bytes* value);
  /* The number of a metadata key of requests, or of replies, that the filter is going to look at:
   * of others nothing is decoded. "connection.peer_uri_san" and the like are keys of requests. -1:
   * it can be none, or there are too many (64 of each). */
  int32_t (*request_key)(void* setup, metaprotocol_bytes name);
  int32_t (*response_key)(void* setup, metaprotocol_bytes name);

  /* --- within the functions that get a `request` */
  /* Not in before_route and on_end. */
  void (*info)(void* request, metaprotocol_request_info* info);
  /* The value of a key: of the reply in on_response, else of the request; keys of the connection
   * may have several, counted by `index`. 0: there is none. Not in on_end. */
  int32_t (*get)(void* request, int32_t key, uint32_t index, metaprotocol_bytes* value);
  /* before_route: what routes, limits and logs see under a key of request_key, in place of what
   * the message says. 0: it is the protocol's own or the connection's, the value is not UTF-8, or
   * there is too much. The server does not see it: see `change`. */
  int32_t (*set)(void* request, int32_t key, metaprotocol_bytes value);
  /* on_request, on_timer: a change to the request, of metaprotocol_mutation_kind, after those of
   * its route. A message that has a place for it and cannot carry it goes no further. 0: the filter
   * has not the trait, a text is not UTF-8, or there is too much: 64 in one call, keys of 1 to 1024
   * bytes, 65536 bytes in all. */
  int32_t (*change)(void* request, int32_t kind, metaprotocol_bytes key, metaprotocol_bytes value);
  /* What the client gets, by the name that configurations have for it ("denied", "over_limit",
   * "no_content" for success without a value...), and a text for people, of which the first 4096
   * bytes are kept. To be followed by METAPROTOCOL_ANSWER. A request that expects no reply is
   * dropped. 0: there is no such reply. */
  int32_t (*answer)(void* request, const char* reply, metaprotocol_bytes text);
  /* How long to wait, at most a minute; to be followed by METAPROTOCOL_WAIT. 0: the filter has not
   * the trait, it is not the time, or this request has been made to wait 16 times. */
  int32_t (*wait)(void* request, uint64_t delay_us);
  /* What the filter keeps of this request from on_request to on_end; null at first. What is left
   * is given to delete_state. 0: the table has no delete_state. */
  void* (*state)(void* request);
  int32_t (*set_state)(void* request, void* state);
  /* Any number, each as likely as any other. Microseconds of a clock that only goes forward. */
  uint64_t (*random)(void* request);
  uint64_t (*now_us)(void* request);
  /* on_request, on_timer, on_response: a change to the reply that the client gets, after those of
   * the route; to one of the proxy's own only where the protocol's errors can carry it. As
   * `change`, but bounded for the request as a whole. Of streams there is no reply. */
  int32_t (*change_reply)(void* request, int32_t kind, metaprotocol_bytes key,
                          metaprotocol_bytes value);
  /* create: the number of a counter, or of a histogram of integers, that the host keeps for the
   * filter; in Envoy they are `filter_counter` and `filter_histogram` with the labels protocol,
   * filter and metric. The same name in another place is the same metric. -1: the name has other
   * characters than small letters, digits and '_', or more than 64, or there are too many (32). */
  int32_t (*counter)(void* setup, metaprotocol_bytes name);
  int32_t (*histogram)(void* setup, metaprotocol_bytes name);
  /* Not in before_route. 0: there is no such counter, or histogram. */
  int32_t (*count)(void* request, int32_t counter, uint64_t delta);
  int32_t (*record)(void* request, int32_t histogram, uint64_t value);
} metaprotocol_filter_host;

typedef struct metaprotocol_filter_table {
  uint32_t abi;  /* METAPROTOCOL_FILTER_ABI */
  uint32_t size; /* sizeof(metaprotocol_filter_table), as the library was compiled */
  const char* name;
  const char* build; /* for people: tells two builds of one filter apart; may be null */
  uint32_t traits;   /* metaprotocol_filter_trait, added */
  uint32_t reserved;

  /* A filter with these options (JSON, may be empty); null, and a text for people, if they are
   * wrong. Called once for each place in each configuration. */
  void* (*create)(metaprotocol_bytes options, const metaprotocol_filter_host* host, void* setup,
                  const metaprotocol_sink* error);
  void (*destroy)(void* filter);

  /* All below may be null, but not all of them. What is null costs nothing. */

  /* Before the route is known: may `set` what routes match on. By the table's filters, never by
   * those that a route has in their place. May be called twice for a large request. */
  void (*before_route)(void* filter, void* request);
  /* Once for each request, or stream that is opened, unless a filter before has answered. */
  int32_t (*on_request)(void* filter, void* request);
  int32_t (*on_timer)(void* filter, void* request);
  /* A reply, or its head: in the opposite order of the filters. Once for each attempt. */
  int32_t (*on_response)(void* filter, void* request, const metaprotocol_response_info* response);
  /* Once for each request that any filter of the chain was given, however it ended. */
  void (*on_end)(void* filter, void* request, const metaprotocol_end_info* end);
  void (*delete_state)(void* filter, void* state);
} metaprotocol_filter_table;

/* What the library exports. */
__attribute__((visibility("default"))) const metaprotocol_filter_table* metaprotocol_filter(void);

#ifdef __cplusplus
}
#endif

#endif /* METAPROTOCOL_FILTER_H_ */
