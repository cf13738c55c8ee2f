// What an engine holds, as JSON: for the admin page and for people who debug.
#pragma once

#include <cstddef>
#include <string>

namespace metaprotocol {

class SessionManager;
class WorkerHub;

std::string DumpEngine(const SessionManager& sessions, size_t exchanges, size_t mirrors,
                       const WorkerHub& hub);

}  // namespace metaprotocol
