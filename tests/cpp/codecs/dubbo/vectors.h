// The captured messages in tests/vectors/dubbo.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "src/codec/codec.h"

namespace metaprotocol::dubbo {

struct Vector {
  std::string peer;  // "java-2.7.23"
  std::string name;  // "echo.request"
  std::string bytes;

  bool request() const { return name.ends_with(".request"); }
  bool from_server() const { return name.starts_with("server-") || name.ends_with(".response"); }
  bool event() const { return name.find('-') != std::string::npos; }
  Direction direction() const { return from_server() ? Direction::kResponse : Direction::kRequest; }
  std::string full_name() const { return peer + "/" + name; }
};

inline std::filesystem::path VectorFolder() {
  // Where the build gives relative names, tests run in the repository's root.
  const std::filesystem::path here = std::filesystem::path(__FILE__).parent_path();
  const std::filesystem::path near = here / "../../../vectors/dubbo";
  return std::filesystem::exists(near) ? near : std::filesystem::path("tests/vectors/dubbo");
}

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::string ReadVector(const std::string& full_name) {
  const std::string bytes = ReadFile(VectorFolder() / (full_name + ".bin"));
  EXPECT_FALSE(bytes.empty()) << full_name;
  return bytes;
}

inline std::vector<Vector> AllVectors() {
  std::vector<Vector> all;
  for (const auto& peer : std::filesystem::directory_iterator(VectorFolder())) {
    if (!peer.is_directory()) continue;
    for (const auto& file : std::filesystem::directory_iterator(peer)) {
      all.push_back(
          {peer.path().filename().string(), file.path().stem().string(), ReadFile(file.path())});
    }
  }
  std::sort(all.begin(), all.end(),
            [](const Vector& a, const Vector& b) { return a.full_name() < b.full_name(); });
  EXPECT_GT(all.size(), 100u);
  return all;
}

}  // namespace metaprotocol::dubbo
