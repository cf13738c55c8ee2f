// What an engine holds, as JSON: for the admin page and for people who debug.
#pragma once

#include <string>

namespace metaprotocol {

class SessionManager;
class WorkerHub;

std::string DumpEngine(const SessionManager& sessions, const WorkerHub& hub);

}  // namespace metaprotocol
