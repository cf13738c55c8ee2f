// Filters behind the C ABI, as the engine meets them: what they can do, and what a hostile one
// cannot. How libraries are loaded is tried from Python, with real ones.
#include "src/filter/library/library_filter.h"

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

metaprotocol_bytes View(std::string_view text) { return {text.data(), text.size()}; }

// A library, as if it had been loaded: functions that a test gives it.
struct Library {
  const metaprotocol_filter_host* host = nullptr;
  FilterMetrics metrics;
  metaprotocol_filter_table table{};
  std::function<void(void* setup)> on_create = [](void*) {};
  std::function<void(void*)> before_route;
  std::function<int32_t(void*)> on_request;
  std::function<int32_t(void*)> on_timer;
  std::function<int32_t(void*, const metaprotocol_response_info&)> on_response;
  std::vector<metaprotocol_end_info> ends;
  int destroyed = 0;
  int states_deleted = 0;
  static inline Library* current = nullptr;

  Library() {
    current = this;
    table.abi = METAPROTOCOL_FILTER_ABI;
    table.size = sizeof table;
    table.name = "tried";
    table.create = [](metaprotocol_bytes, const metaprotocol_filter_host* host, void* setup,
                      const metaprotocol_sink*) -> void* {
      current->host = host;
      current->on_create(setup);
      return current;
    };
    table.destroy = [](void* filter) { ++static_cast<Library*>(filter)->destroyed; };
  }

  std::shared_ptr<const Filter> Make(MetadataKeys& request_keys, MetadataKeys& response_keys,
                                     bool mutation_in_head = true) {
    if (before_route) {
      table.before_route = [](void* filter, void* request) {
        static_cast<Library*>(filter)->before_route(request);
      };
    }
    if (on_request) {
      table.on_request = [](void* filter, void* request) {
        return static_cast<Library*>(filter)->on_request(request);
      };
    }
    if (on_timer) {
      table.on_timer = [](void* filter, void* request) {
        return static_cast<Library*>(filter)->on_timer(request);
      };
    }
    if (on_response) {
      table.on_response = [](void* filter, void* request, const metaprotocol_response_info* info) {
        return static_cast<Library*>(filter)->on_response(request, *info);
      };
    }
    table.on_end = [](void* filter, void*, const metaprotocol_end_info* info) {
      static_cast<Library*>(filter)->ends.push_back(*info);
    };
    const FilterSurroundings surroundings{"fake", mutation_in_head, request_keys, response_keys,
                                          metrics};
    LibraryFilterOrError made = LibraryFilter::Make(table, "", surroundings);
    EXPECT_NE(made.filter, nullptr) << made.error;
    return std::shared_ptr<const Filter>(std::move(made.filter));
  }

  // A world whose requests pass it.
  SimConfig Config(SimConfig base = {}) {
    const bool in_head = base.codec->traits().mutation_in_head;
    base.make_filters = {{"tried", [this, in_head](MetadataKeys& keys) {
                            MetadataKeys unused(
                                FakeCodec(FakeMultiplexed()).traits().metadata_keys);
                            return Make(keys, unused, in_head);
                          }}};
    base.filter_metrics = &metrics;
    return base;
  }

  int32_t Answer(void* request, const char* reply, std::string_view text) const {
    return host->answer(request, reply, View(text)) != 0 ? METAPROTOCOL_ANSWER : -1;
  }
};

// What a client gets for one request, in a world of its own.
std::string Outcome(Library& library, SimConfig base = {}, uint64_t wait = kSecond) {
  World world(library.Config(std::move(base)));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "body", {{"name", "x"}}));
  world.RunFor(wait);
  std::string kinds = Kinds(client.Take());
  client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
  return kinds;
}

TEST(LibraryFilter, PassesOnWhatItSaysAndAnswersTheRest) {
  Library library;
  library.on_request = [](void*) { return METAPROTOCOL_CONTINUE; };
  EXPECT_EQ(Outcome(library), "R");
  library.on_request = [&](void* request) { return library.Answer(request, "denied", "no"); };
  EXPECT_EQ(Outcome(library), "E");
  ASSERT_EQ(library.ends.size(), 2u);
  EXPECT_EQ(library.ends[0].kind, METAPROTOCOL_END_REPLIED);
  EXPECT_EQ(library.ends[0].attempts, 1u);
  EXPECT_EQ(library.ends[1].kind, METAPROTOCOL_END_ANSWERED);
  EXPECT_EQ(std::string(library.ends[1].reply.data, library.ends[1].reply.size), "denied");
  EXPECT_EQ(library.destroyed, 2);
}

// Whatever it says that is no verdict, the request does not pass.
TEST(LibraryFilter, FailsRequestsWhereItBreaksTheRules) {
  Library library;
  library.table.traits = METAPROTOCOL_WAITS;
  library.on_timer = [](void*) { return METAPROTOCOL_CONTINUE; };
  const std::vector<std::function<int32_t(void*)>> wrong = {
      [](void*) { return 3; },
      [](void*) { return -1; },
      [](void*) { return INT32_MIN; },
      [](void*) { return METAPROTOCOL_ANSWER; },
      [](void*) { return METAPROTOCOL_WAIT; },
      [&](void* request) {
        EXPECT_EQ(library.host->answer(request, "no such", View("")), 0);
        EXPECT_EQ(library.host->answer(request, nullptr, View("")), 0);
        return METAPROTOCOL_ANSWER;
      },
      [&](void* request) {  // what it has told goes with another verdict
        library.host->answer(request, "no_content", View(""));
        return 9;
      }};
  for (const auto& verdict : wrong) {
    library.on_request = verdict;
    EXPECT_EQ(Outcome(library), "E");
  }
  for (const auto& end : library.ends) {
    EXPECT_EQ(std::string(end.reply.data, end.reply.size), "fault");
  }
}

TEST(LibraryFilter, FailsRepliesWhereItBreaksTheRules) {
  Library library;
  for (const int32_t verdict : {1, 2, 3, -1}) {
    library.on_response = [&](void*, const metaprotocol_response_info&) { return verdict; };
    EXPECT_EQ(Outcome(library), "E") << verdict;
  }
}

TEST(LibraryFilter, ReplacesReplies) {
  Library library;
  library.on_response = [&](void* request, const metaprotocol_response_info& info) {
    EXPECT_EQ(info.status, METAPROTOCOL_STATUS_OK);
    EXPECT_NE(info.length, 0u);
    return library.Answer(request, "over_limit", std::string(100000, 'x'));
  };
  EXPECT_EQ(Outcome(library), "E");
}

TEST(LibraryFilter, WaitsAsOftenAndAsLongAsItMay) {
  Library library;
  library.table.traits = METAPROTOCOL_WAITS;
  int fired = 0;
  const auto wait = [&](void* request) -> int32_t {
    return library.host->wait(request, UINT64_MAX) != 0 ? METAPROTOCOL_WAIT : -1;
  };
  library.on_request = wait;
  library.on_timer = [&](void*) {
    ++fired;
    return METAPROTOCOL_CONTINUE;
  };
  EXPECT_EQ(Outcome(library, {}, 59 * kSecond), "");
  EXPECT_EQ(Outcome(library, {}, 61 * kSecond), "R");
  fired = 0;
  library.on_timer = [&](void* request) {
    ++fired;
    return wait(request);
  };
  EXPECT_EQ(Outcome(library, {}, 17 * 61 * kSecond), "E") << "it ends";
  EXPECT_EQ(fired, static_cast<int>(LibraryFilter::kMostWaits));
  library.table.traits = 0;
  EXPECT_EQ(Outcome(library), "E") << "without the trait it cannot wait";
}

TEST(LibraryFilter, ChangesNoMoreThanItMay) {
  Library library;
  library.table.traits = METAPROTOCOL_CHANGES_REQUESTS;
  size_t taken = 0;
  size_t bytes = 0;
  const std::string large(1 << 20, 'x');
  library.on_request = [&](void* request) {
    const auto change = [&](std::string_view key, std::string_view value, int32_t kind = 0) {
      const bool done = library.host->change(request, kind, View(key), View(value)) != 0;
      taken += done ? 1 : 0;
      bytes += done ? key.size() + value.size() : 0;
      return done;
    };
    EXPECT_FALSE(change("", "v"));
    EXPECT_FALSE(change(std::string(1025, 'k'), "v"));
    EXPECT_FALSE(change("k", "\xff"));
    EXPECT_FALSE(change("\xff", "v"));
    EXPECT_FALSE(change("k", large));
    EXPECT_FALSE(change("k", "v", 3));
    EXPECT_FALSE(change("k", "v", -1));
    for (int i = 0; i < 100000; ++i) change("k", "v");
    for (int i = 0; i < 1000; ++i) change("k", std::string_view(large).substr(0, 60000));
    return METAPROTOCOL_CONTINUE;
  };
  EXPECT_EQ(Outcome(library), "R");
  EXPECT_LE(taken, LibraryFilter::kMostChanges);
  EXPECT_LE(bytes, LibraryFilter::kMostChangedBytes);
  EXPECT_GT(taken, 10u);
  library.table.traits = 0;
  taken = 0;
  EXPECT_EQ(Outcome(library), "R");
  EXPECT_EQ(taken, 0u) << "without the trait none";
}

TEST(LibraryFilter, ChangesRepliesUpToABoundForTheRequest) {
  for (const bool in_head : {true, false}) {
    FakeOptions options = FakeMultiplexed();
    options.mutation_in_head = in_head;
    Library library;
    library.table.traits = METAPROTOCOL_CHANGES_REPLIES;
    size_t taken = 0;
    const auto change = [&](void* request, std::string_view key, std::string_view value) {
      const bool done = library.host->change_reply(request, 0, View(key), View(value)) != 0;
      taken += done ? 1 : 0;
      return done;
    };
    library.on_request = [&](void* request) {
      EXPECT_TRUE(change(request, "asked", "x"));
      EXPECT_FALSE(change(request, "", "v"));
      EXPECT_FALSE(change(request, "k", "\xff"));
      EXPECT_EQ(library.host->change(request, 0, View("k"), View("v")), 0) << "another trait";
      return METAPROTOCOL_CONTINUE;
    };
    library.on_response = [&](void* request, const metaprotocol_response_info&) {
      EXPECT_TRUE(change(request, "answered", "y"));
      for (int i = 0; i < 100000; ++i) change(request, "k", "v");
      return METAPROTOCOL_CONTINUE;
    };
    SimConfig base = With(options, UpstreamMode::kShared);
    base.limits.stream_message_bytes = 1024;
    World world(library.Config(base));
    world.SetHosts("a", {"h1"});
    world.servers["h1"].reply_body_bytes = 5000;
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body"));
    world.RunFor(kSecond);
    const auto replies = client.Take();
    ASSERT_EQ(Kinds(replies), "R");
    const std::map<std::string, std::string> kv(replies[0].kv.begin(), replies[0].kv.end());
    EXPECT_EQ(kv.at("asked"), "x");
    EXPECT_EQ(kv.at("answered"), "y");
    EXPECT_LE(taken, LibraryFilter::kMostChanges);
    EXPECT_GT(taken, 10u);
  }
}

TEST(LibraryFilter, LooksAtNothingThatItHasNotAskedFor) {
  Library library;
  int32_t name = -1;
  int32_t peers = -1;
  library.on_create = [&](void* setup) {
    name = library.host->request_key(setup, View("name"));
    peers = library.host->request_key(setup, View("connection.peer_uri_san"));
    EXPECT_EQ(library.host->request_key(setup, View("")), -1);
    EXPECT_EQ(library.host->request_key(setup, View("connection.nothing")), -1);
    EXPECT_EQ(library.host->request_key(setup, View(std::string(2000, 'k'))), -1);
    EXPECT_EQ(library.host->response_key(setup, View("connection.sni")), -1);
    for (size_t i = 0; i < 100; ++i) library.host->request_key(setup, View("name"));
    EXPECT_EQ(library.host->request_key(setup, View("name")), -1) << "there are too many";
  };
  library.on_request = [&](void* request) {
    metaprotocol_bytes value{};
    EXPECT_EQ(library.host->get(request, name, 0, &value), 1);
    EXPECT_EQ(std::string(value.data, value.size), "x");
    EXPECT_EQ(library.host->get(request, name, 1, &value), 0);
    EXPECT_EQ(library.host->get(request, peers, 0, &value), 0);
    for (const int32_t key : {-1, 64, 1000000, INT32_MAX, INT32_MIN}) {
      EXPECT_EQ(library.host->get(request, key, 0, &value), 0);
      EXPECT_EQ(library.host->set(request, key, View("v")), 0);
    }
    EXPECT_EQ(library.host->set(request, name, View("v")), 0) << "the route is known";
    metaprotocol_request_info info{};
    library.host->info(request, &info);
    EXPECT_EQ(info.expects_reply, 1);
    EXPECT_EQ(info.kind, METAPROTOCOL_KIND_REQUEST);
    EXPECT_NE(info.length, 0u);
    return METAPROTOCOL_CONTINUE;
  };
  EXPECT_EQ(Outcome(library), "R");
}

TEST(LibraryFilter, SetsWhatRoutesSee) {
  Library library;
  int32_t lane = -1;
  library.on_create = [&](void* setup) { lane = library.host->request_key(setup, View("lane")); };
  library.before_route = [&](void* request) {
    EXPECT_EQ(library.host->set(request, lane, View("\xff")), 0);
    EXPECT_EQ(library.host->set(request, lane, View("b")), 1);
    EXPECT_EQ(library.host->state(request), nullptr);
    EXPECT_EQ(library.host->set_state(request, request), 0);
    EXPECT_EQ(library.host->answer(request, "denied", View("")), 1) << "and has no effect";
    for (int i = 0; i < 100000; ++i) library.host->set(request, lane, View("b"));
  };
  SimConfig base;
  SimRoute to_b;
  Condition condition;
  condition.key = "lane";
  condition.kind = Condition::Kind::kExact;
  condition.values = {"b"};
  to_b.match = {condition};
  to_b.clusters = {{.name = "b"}};
  base.routes = {to_b, SimRoute{}};
  World world(library.Config(std::move(base)));
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  ASSERT_EQ(library.ends.size(), 1u);
}

TEST(LibraryFilter, KeepsAStateForEachRequestAndGivesItBackOnce) {
  Library library;
  library.table.delete_state = [](void* filter, void* state) {
    ++static_cast<Library*>(filter)->states_deleted;
    delete static_cast<int*>(state);
  };
  library.on_request = [&](void* request) {
    EXPECT_EQ(library.host->state(request), nullptr);
    library.host->set_state(request, new int(1));
    library.host->set_state(request, new int(2));  // the first one goes at once
    EXPECT_EQ(library.states_deleted % 2, 1);
    return METAPROTOCOL_CONTINUE;
  };
  library.on_response = [&](void* request, const metaprotocol_response_info&) {
    EXPECT_EQ(*static_cast<int*>(library.host->state(request)), 2);
    library.host->set_state(request, library.host->state(request));
    return METAPROTOCOL_CONTINUE;
  };
  EXPECT_EQ(Outcome(library), "R");
  EXPECT_EQ(Outcome(library), "R");
  EXPECT_EQ(library.states_deleted, 4);
}

// The client leaves, and the configuration with it, while the request waits.
TEST(LibraryFilter, ForgetsRequestsThatWaitForIt) {
  Library library;
  library.table.traits = METAPROTOCOL_WAITS;
  library.on_request = [&](void* request) -> int32_t {
    return library.host->wait(request, kMs) != 0 ? METAPROTOCOL_WAIT : -1;
  };
  library.on_timer = [](void*) { return METAPROTOCOL_CONTINUE; };
  World world(library.Config());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
  ASSERT_EQ(library.ends.size(), 1u);
  EXPECT_EQ(library.ends[0].kind, METAPROTOCOL_END_CLIENT_GONE);
}

TEST(LibraryFilter, GetsWholeRequestsWhereItMustAndOnlyThere) {
  Library library;
  library.on_request = [](void*) { return METAPROTOCOL_CONTINUE; };
  library.on_timer = library.on_request;
  MetadataKeys keys;
  const Metadata metadata;
  const ConnectionMetadata connection;
  const MatchInput head{metadata, connection};
  EXPECT_FALSE(library.Make(keys, keys)->WantsWhole(head));
  library.table.traits = METAPROTOCOL_CHANGES_REQUESTS;
  EXPECT_FALSE(library.Make(keys, keys, true)->WantsWhole(head));
  EXPECT_TRUE(library.Make(keys, keys, false)->WantsWhole(head));
  library.table.traits = METAPROTOCOL_WAITS;
  EXPECT_TRUE(library.Make(keys, keys)->WantsWhole(head));
}

TEST(LibraryFilter, CountsAndMeasuresUnderNamesOfItsOwn) {
  Library library;
  int32_t denied = -1;
  int32_t score = -1;
  int32_t same = -1;
  library.on_create = [&](void* setup) {
    denied = library.host->counter(setup, View("denied"));
    score = library.host->histogram(setup, View("score"));
    same = library.host->counter(setup, View("denied"));
    for (const char* bad : {"", "Denied", "a-b", "a.b", "a b", "\xc3\xa9"}) {
      EXPECT_EQ(library.host->counter(setup, View(bad)), -1) << bad;
    }
    EXPECT_EQ(library.host->histogram(setup, View(std::string(65, 'a'))), -1);
    for (size_t i = 3; i < LibraryFilter::kMostMetrics; ++i) {
      EXPECT_NE(library.host->counter(setup, View("m" + std::to_string(i))), -1);
    }
    EXPECT_EQ(library.host->counter(setup, View("one_more")), -1);
  };
  library.before_route = [&](void* request) {
    EXPECT_EQ(library.host->count(request, denied, 1), 0) << "it is nobody's request yet";
  };
  library.on_request = [&](void* request) {
    EXPECT_EQ(library.host->count(request, denied, 2), 1);
    EXPECT_EQ(library.host->count(request, same, 1), 1);
    EXPECT_EQ(library.host->record(request, score, 17), 1);
    EXPECT_EQ(library.host->count(request, score, 1), 0) << "a histogram";
    EXPECT_EQ(library.host->record(request, denied, 1), 0) << "a counter";
    for (const int32_t none : {-1, 32, 1 << 30}) {
      EXPECT_EQ(library.host->count(request, none, 1), 0);
      EXPECT_EQ(library.host->record(request, none, 1), 0);
    }
    return METAPROTOCOL_CONTINUE;
  };
  World world(library.Config());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 3; ++id) client.Send(world.Request(id));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "RRR");
  EXPECT_EQ(world.Count(Counter::kFilterCounter, "denied", "tried"), 9u);
  EXPECT_EQ(library.metrics.size(), LibraryFilter::kMostMetrics - 1) << "of one name there is one";
}

}  // namespace
}  // namespace metaprotocol::test
