// Which of a filter's configurations are in force, and which are still kept.
#include "src/config/config_slot.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cpp/support/sim_config.h"

namespace metaprotocol {
namespace {

std::shared_ptr<const Snapshot> In(const std::string& listener) {
  test::SimConfig config;
  config.listener_name = listener;
  return test::BuildSnapshot(config);
}

std::shared_ptr<const Snapshot> CurrentOf(const ConfigSlot& slot) {
  uint64_t version = 0;
  return slot.Current(version);
}

// Publishes a snapshot of which nobody but the slot holds more than this.
std::weak_ptr<const Snapshot> Publish(ConfigSlot& slot, const std::string& listener,
                                      ConfigSlot::Ticket& ticket) {
  const std::shared_ptr<const Snapshot> snapshot = In(listener);
  ticket = slot.Publish(snapshot);
  return snapshot;
}

TEST(ConfigSlot, WhatAListenerHadBeforeIsFreedOnceTheNewestHasAConnection) {
  ConfigSlot slot;
  ConfigSlot::Ticket old_ticket, new_ticket;
  const auto old = Publish(slot, "a", old_ticket);
  const auto latest = Publish(slot, "a", new_ticket);
  EXPECT_FALSE(old.expired());
  slot.InForce(new_ticket);
  EXPECT_TRUE(old.expired());
  EXPECT_EQ(CurrentOf(slot), latest.lock());
  slot.Withdraw(old_ticket);  // by an owner that old connections have kept
  EXPECT_EQ(CurrentOf(slot), latest.lock());
}

TEST(ConfigSlot, AConfigurationThatNeverCameToBeLeavesTheFormerInForce) {
  ConfigSlot slot;
  ConfigSlot::Ticket old_ticket, new_ticket;
  const auto old = Publish(slot, "a", old_ticket);
  slot.InForce(old_ticket);
  Publish(slot, "a", new_ticket);
  slot.InForce(old_ticket);
  slot.Withdraw(new_ticket);
  EXPECT_EQ(CurrentOf(slot), old.lock());
}

TEST(ConfigSlot, OtherListenersKeepTheirs) {
  ConfigSlot slot;
  ConfigSlot::Ticket first, other, unnamed, second;
  const auto kept = Publish(slot, "b", other);
  const auto also_kept = Publish(slot, "", unnamed);
  Publish(slot, "a", first);
  Publish(slot, "a", second);
  slot.InForce(second);
  EXPECT_FALSE(kept.expired());
  EXPECT_FALSE(also_kept.expired());
  slot.Withdraw(second);
  EXPECT_EQ(CurrentOf(slot), also_kept.lock());
  slot.Withdraw(unnamed);
  EXPECT_EQ(CurrentOf(slot), kept.lock());
}

TEST(ConfigSlot, WithoutAListenersNameNothingIsFreedEarly) {
  ConfigSlot slot;
  ConfigSlot::Ticket first, second;
  const auto old = Publish(slot, "", first);
  Publish(slot, "", second);
  slot.InForce(second);
  EXPECT_FALSE(old.expired());
}

}  // namespace
}  // namespace metaprotocol
