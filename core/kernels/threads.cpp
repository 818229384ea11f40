// Where the threads of the kernels come from.

#include "threads.h"

#include <pthread.h>

// `run` is GOMP_parallel of this process, or null for plain threads.
extern "C" int32_t tessera_use_team(void* run) {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { run_on_team = nullptr; }); });
  run_on_team = reinterpret_cast<RunOnTeam>(run);
  return 0;
}
