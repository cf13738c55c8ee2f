// Attempts: each ends once, and its result says how far it had come.
#include "src/upstream/attempt.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/engine_context.h"
#include "src/upstream/worker_hub.h"
#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol::test {
namespace {

using Cause = AttemptResult::Cause;

// Keeps what is written to leases; connections are made and lost by the test.
class StubHost : public Host {
 public:
  std::vector<LeaseId> opened;
  std::map<void*, std::string> written;
  std::vector<size_t> writes;  // their sizes
  bool paused = false;         // the lease
  bool gathers = false;

  void WriteSession(SessionHandle, Bytes) override {}
  void CloseSession(SessionHandle, CloseMode) override {}
  void PauseSession(SessionHandle, bool) override {}
  void OpenLease(LeaseId lease, std::string_view, std::string_view) override {
    opened.push_back(lease);
  }
  void WriteLease(LeaseHandle lease, Bytes bytes) override {
    written[lease].append(bytes);
    writes.push_back(bytes.size());
  }
  bool Gathers() override { return gathers; }
  void ProbeLease(LeaseHandle) override {}
  void PauseLease(LeaseHandle, bool now) override { paused = now; }
  void ReleaseLease(LeaseId) override {}
  void ResetLease(LeaseId) override {}
  void StartCall(CallId, SessionHandle, std::string_view, std::string_view, Bytes,
                 uint64_t) override {}
  uint64_t NowUs() override { return 1; }
  void SetTimer(uint64_t) override {}
  uint64_t Random() override { return 7; }
  bool LogEnabled(LogLevel) override { return false; }
  void Log(LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const SeriesLabels&) override {}
  void AddCounter(uint32_t, Counter, uint64_t) override {}
  void AddGauge(uint32_t, Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t>) override {}
};

class AttemptTest : public testing::Test, public AttemptSink {
 protected:
  AttemptTest() {
    protocol_->name = "test";
    protocol_->codec = std::make_shared<FakeCodec>();
    protocol_->max_message_bytes = size_t{1} << 20;
    protocol_->stream_message_bytes = 1024;
    attempt_.sink = this;
  }

  void SetHost() {
    HostInfo info;
    info.address = "192.0.2.9:80";
    hub_.SetCluster("c", 1, std::make_shared<ClusterPolicy>(), {info});
  }
  void UseExclusiveLeases() { protocol_->mode = UpstreamMode::kExclusive; }

  // A request of which only the first `part` bytes are there.
  std::optional<AttemptResult> Start(Attempt& attempt, char kind = 'Q',
                                     std::string_view body = "body", size_t part = ~size_t{0}) {
    const std::string bytes = FakeMessage(kind, 1, {{"k", "v"}}, body);
    Message message;
    DecodeOptions options;
    options.allow_partial = true;
    const Bytes there = Bytes(bytes).substr(0, part);
    protocol_->codec->Decode(nullptr, Direction::kRequest, there, options, message);
    const RequestView view{message, there};
    return hub_.Start(attempt, {protocol_,
                                *whose_,
                                *hub_.FindCluster("c"),
                                mutation_,
                                view,
                                {.length = message.length, .avoid = avoid_}});
  }
  // On behalf of somebody else.
  void Start(Attempt& attempt, LeaseOwner& owner) {
    whose_ = &owner;
    Start(attempt);
    whose_ = &owner_;
  }
  void Connect() {
    hub_.Settle();
    hub_.LeaseReady(host_.opened.back(), &host_);
  }
  // Under the id that the server has seen last.
  void Answer(std::string_view body, size_t part = ~size_t{0}) {
    const std::vector<FakeParsed> seen = ParseFakeMessages(host_.written[&host_]);
    const std::string bytes = FakeMessage('R', seen.back().id, {}, body);
    const Bytes there = Bytes(bytes).substr(0, part);
    hub_.LeaseData(host_.opened.back(), {&there, 1});
  }
  void Lose(LeaseCloseReason reason = LeaseCloseReason::kRemoteClose) {
    hub_.LeaseClosed(host_.opened.back(), reason);
  }
  void EndEvent() {
    hub_.Settle();
    hub_.FreeGone();
  }

  void OnWholeReply(Attempt& attempt, const UpstreamHost& host, const Codec&, Message& message,
                    Bytes bytes) override {
    EXPECT_EQ(bytes.size(), message.length);
    ++replies_;
    AttemptResult result;
    result.cause = Cause::kReplied;
    result.host = &host;
    OnAttemptEnd(attempt, result);
  }
  Handled OnReply(Attempt&, const Codec&, Message& message, Bytes bytes) override {
    ++replies_;
    if (give_up_at_head_) given_up_ = hub_.Abandon(attempt_, Cause::kGivenUp);
    return bytes.size() < message.length && want_whole_ ? Handled::kWantedWhole : Handled::kDone;
  }
  void OnReplyBody(Attempt&, Bytes bytes) override { body_bytes_ += bytes.size(); }
  void OnAttemptEnd(Attempt& attempt, const AttemptResult& result) override {
    EXPECT_FALSE(attempt.started());
    ends_.push_back(result);
    addresses_.emplace_back(result.host != nullptr ? result.host->address : "");
  }

  void ExpectEnd(Cause cause, size_t bytes_written) {
    ASSERT_EQ(ends_.size(), 1u);
    EXPECT_EQ(ends_[0].cause, cause);
    EXPECT_EQ(ends_[0].bytes_written, bytes_written);
    EXPECT_EQ(addresses_[0], "192.0.2.9:80");
  }
  void ExpectReplied() {
    ASSERT_EQ(ends_.size(), 1u);
    EXPECT_EQ(ends_[0].cause, Cause::kReplied);
    EXPECT_EQ(addresses_[0], "192.0.2.9:80");
  }

  StubHost host_;
  EngineContext context_{host_};
  WorkerHub hub_{context_};
  std::shared_ptr<UpstreamProtocol> protocol_ = std::make_shared<UpstreamProtocol>();
  LeaseOwner owner_;
  LeaseOwner* whose_ = &owner_;
  std::string avoid_;
  Mutation mutation_;
  Attempt attempt_;
  Attempt other_;
  bool give_up_at_head_ = false;
  bool want_whole_ = false;
  int replies_ = 0;
  size_t body_bytes_ = 0;
  std::vector<AttemptResult> ends_;
  std::vector<std::string> addresses_;
  AttemptResult given_up_;
  const size_t size_ = FakeMessage('Q', 1, {{"k", "v"}}, "body").size();
};

TEST_F(AttemptTest, IsRefusedWhereThereIsNoHost) {
  hub_.SetCluster("c", 1, std::make_shared<ClusterPolicy>(), {});
  const auto ended = Start(attempt_);
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->cause, Cause::kRefused);
  EXPECT_EQ(ended->reply, LocalReply::kNoHealthyUpstream);
  EXPECT_EQ(ended->host, nullptr);
  EXPECT_TRUE(ends_.empty());
}

TEST_F(AttemptTest, NeverConnectedIfTheConnectionFails) {
  SetHost();
  EXPECT_FALSE(Start(attempt_).has_value());
  hub_.Settle();
  Lose(LeaseCloseReason::kConnectFailed);
  ExpectEnd(Cause::kNeverConnected, 0);
  EXPECT_EQ(ends_[0].reply, LocalReply::kUpstreamLost);
}

TEST_F(AttemptTest, NeverWrittenIfTheConnectionIsLostBeforeAnythingLeft) {
  SetHost();
  other_.sink = this;
  Start(other_);
  Connect();
  hub_.Settle();
  Answer("");
  ends_.clear();
  addresses_.clear();
  EXPECT_FALSE(Start(attempt_).has_value());
  Lose();  // within the event that would have written it at its end
  ExpectEnd(Cause::kNeverWritten, 0);
}

TEST_F(AttemptTest, LostBeforeTheHeadOfTheReply) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  Lose();
  ExpectEnd(Cause::kLostBeforeHead, size_);
}

TEST_F(AttemptTest, LostAfterTheHeadOfTheReply) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  Answer(std::string(5000, 'x'), 2000);
  Lose();
  ExpectEnd(Cause::kLostAfterHead, size_);
  EXPECT_EQ(replies_, 1);
}

TEST_F(AttemptTest, SaysHowMuchOfABodyWasWritten) {
  SetHost();
  const std::string body(5000, 'x');
  Start(attempt_, 'Q', body, 1000);
  Connect();
  hub_.Settle();
  hub_.SendBody(attempt_, std::string(500, 'x'), false);
  hub_.Settle();
  hub_.SendBody(attempt_, std::string(200, 'x'), false);  // not written when it is lost
  Lose();
  ExpectEnd(Cause::kLostBeforeHead, 1500);
}

TEST_F(AttemptTest, EndsWithTheLastByteOfTheReply) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  Answer("hello");
  ExpectReplied();
  EXPECT_EQ(replies_, 1);
}

TEST_F(AttemptTest, ReplyThatIsWantedWholeIsGivenAgain) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  want_whole_ = true;
  const std::string reply = FakeMessage('R', ParseFakeMessages(host_.written[&host_]).back().id, {},
                                        std::string(5000, 'x'));
  const Bytes first = Bytes(reply).substr(0, 2000);
  const Bytes rest = Bytes(reply).substr(2000);
  hub_.LeaseData(host_.opened.back(), {&first, 1});
  EXPECT_EQ(replies_, 1);
  hub_.LeaseData(host_.opened.back(), {&rest, 1});
  EXPECT_EQ(replies_, 2);
  EXPECT_EQ(body_bytes_, 0u);
  ExpectReplied();
}

TEST_F(AttemptTest, MayBeGivenUpWhileItsSinkIsToldOfTheReply) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  give_up_at_head_ = true;
  Answer(std::string(5000, 'x'), 2000);
  EndEvent();
  EXPECT_TRUE(ends_.empty());
  EXPECT_EQ(given_up_.cause, Cause::kGivenUp);
  EXPECT_EQ(given_up_.bytes_written, size_);
  EXPECT_FALSE(attempt_.started());
}

TEST_F(AttemptTest, MessageWithoutReplyHasEndedWhenItIsWritten) {
  SetHost();
  const auto ended = Start(attempt_, 'O');
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->cause, Cause::kSent);
  EXPECT_TRUE(ends_.empty());
}

TEST_F(AttemptTest, WaitingOneNeverConnectedIfItsClusterGoes) {
  UseExclusiveLeases();
  auto policy = std::make_shared<ClusterPolicy>();
  policy->max_leases_per_host = 1;
  HostInfo info;
  info.address = "192.0.2.9:80";
  hub_.SetCluster("c", 1, policy, {info});
  other_.sink = this;
  Start(other_);
  Start(attempt_);
  EXPECT_EQ(attempt_.state(), Attempt::State::kPending);
  Connect();
  hub_.RemoveCluster("c", 1);
  EndEvent();
  ExpectEnd(Cause::kNeverConnected, 0);
  EXPECT_EQ(ends_[0].reply, LocalReply::kClusterNotFound);
  hub_.Abandon(other_, Cause::kGivenUp);
}

TEST_F(AttemptTest, ReplyThatNobodyTakesPausesItsServer) {
  SetHost();
  Start(attempt_);
  Connect();
  hub_.Settle();
  Answer(std::string(5000, 'x'), 2000);
  hub_.PauseReply(attempt_, true);
  EndEvent();
  EXPECT_TRUE(host_.paused);
  hub_.PauseReply(attempt_, false);
  EndEvent();
  EXPECT_FALSE(host_.paused);
  hub_.PauseReply(attempt_, true);
  EndEvent();
  hub_.Abandon(attempt_, Cause::kGivenUp);
  EndEvent();
  EXPECT_FALSE(host_.paused);
}

TEST_F(AttemptTest, PauseHoldsUpNobodyElse) {
  SetHost();
  LeaseOwner somebody;
  other_.sink = this;
  Start(attempt_);
  Start(other_, somebody);
  Connect();
  hub_.Settle();
  hub_.PauseReply(attempt_, true);
  EndEvent();
  EXPECT_FALSE(host_.paused) << "somebody else waits on the lease";
  Attempt third;
  third.sink = this;
  Start(third, somebody);
  hub_.Settle();
  EXPECT_EQ(host_.opened.size(), 2u) << "and nobody comes to it";
  hub_.Abandon(other_, Cause::kGivenUp);
  EndEvent();
  EXPECT_TRUE(host_.paused);
  hub_.Abandon(attempt_, Cause::kGivenUp);
  hub_.Abandon(third, Cause::kGivenUp);
}

TEST_F(AttemptTest, PauseOfRequestsOfTheSameOwnerIsTheirOwnAffair) {
  SetHost();
  other_.sink = this;
  Start(attempt_);
  Start(other_);
  Connect();
  hub_.Settle();
  hub_.PauseReply(attempt_, true);
  EndEvent();
  EXPECT_TRUE(host_.paused);
  hub_.Abandon(attempt_, Cause::kGivenUp);
  EndEvent();
  EXPECT_FALSE(host_.paused);
  hub_.Abandon(other_, Cause::kGivenUp);
}

TEST_F(AttemptTest, RequestsOfSeveralEventsGatherUntilTheTurnIsOver) {
  SetHost();
  Start(attempt_);
  Connect();
  EndEvent();
  host_.writes.clear();
  host_.gathers = true;
  other_.sink = this;
  Attempt third;
  third.sink = this;
  Start(other_);
  EndEvent();
  Start(third);
  EndEvent();
  EXPECT_TRUE(host_.writes.empty());
  hub_.WriteGathered();
  EXPECT_EQ(host_.writes, std::vector<size_t>{2 * size_});
  hub_.WriteGathered();
  EXPECT_EQ(host_.writes.size(), 1u) << "it is written once";
  for (Attempt* attempt : {&attempt_, &other_, &third}) hub_.Abandon(*attempt, Cause::kGivenUp);
}

TEST_F(AttemptTest, MuchIsNotGathered) {
  SetHost();
  Start(attempt_);
  Connect();
  EndEvent();
  host_.writes.clear();
  host_.gathers = true;
  const std::string body(5000, 'x');  // less than what is written without being gathered first
  std::vector<std::unique_ptr<Attempt>> attempts;
  while (host_.writes.empty() && attempts.size() < 100) {
    attempts.push_back(std::make_unique<Attempt>());
    attempts.back()->sink = this;
    Start(*attempts.back(), 'Q', body);
    EndEvent();
  }
  ASSERT_EQ(host_.writes.size(), 1u);
  EXPECT_GE(host_.writes[0], size_t{64} << 10);
  EXPECT_LE(host_.writes[0], (size_t{64} << 10) + 6000);
  attempts.push_back(std::make_unique<Attempt>());
  attempts.back()->sink = this;
  Start(*attempts.back());
  EndEvent();
  EXPECT_EQ(host_.writes.size(), 1u) << "and then it gathers again";
  hub_.WriteGathered();
  EXPECT_EQ(host_.writes.size(), 2u);
  hub_.Abandon(attempt_, Cause::kGivenUp);
  for (const auto& attempt : attempts) hub_.Abandon(*attempt, Cause::kGivenUp);
}

TEST_F(AttemptTest, WhatHasGatheredWasNeverWrittenIfTheConnectionIsLost) {
  SetHost();
  other_.sink = this;
  Start(other_);
  Connect();
  EndEvent();
  Answer("");
  EndEvent();
  ends_.clear();
  addresses_.clear();
  host_.gathers = true;
  Start(attempt_);
  EndEvent();
  Lose();
  EndEvent();
  ExpectEnd(Cause::kNeverWritten, 0);
  hub_.WriteGathered();  // the lease is gone
}

TEST_F(AttemptTest, AvoidsAHostIfThereIsAnother) {
  HostInfo one;
  one.address = "192.0.2.9:80";
  HostInfo two;
  two.address = "192.0.2.10:80";
  hub_.SetCluster("c", 1, std::make_shared<ClusterPolicy>(), {one, two});
  Attempt attempts[10];
  avoid_ = one.address;
  for (Attempt& attempt : attempts) {
    attempt.sink = this;
    Start(attempt);
  }
  for (Attempt& attempt : attempts) {
    EXPECT_EQ(hub_.Abandon(attempt, Cause::kGivenUp).host->address, two.address);
  }
  hub_.SetCluster("c", 1, std::make_shared<ClusterPolicy>(), {one});
  EXPECT_FALSE(Start(attempt_).has_value()) << "it is better than none";
  hub_.Abandon(attempt_, Cause::kGivenUp);
}

}  // namespace
}  // namespace metaprotocol::test
