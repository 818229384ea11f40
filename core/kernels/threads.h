// Work on several threads, and scratch memory that outlives a call.
//
// Torch's own loops run on an OpenMP pool whose idle threads spin for milliseconds after each of
// them. Threads beside that pool would fight it for the cores, so work goes to the same pool, by
// the address of its entry point that Python hands over. Where there is none, and in a forked child,
// whose pool did not survive, plain threads do the work.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

// GOMP_parallel of the OpenMP runtimes of GCC and LLVM: run(data) on every thread of a team, as
// many as omp_set_num_threads said last where `n_thread` is nought.
using RunOnTeam = void (*)(void (*run)(void*), void* data, unsigned n_thread, unsigned flags);
inline std::atomic<RunOnTeam> run_on_team{nullptr};

// Run work(i) for i in 0..n-1 on up to n_thread threads. Which thread takes which i is free, so
// results repeat bit for bit only because each i writes its own output.
template <class Work>
void parallel_for(int64_t n, int n_thread, const Work& work) {
  if (n_thread > n) n_thread = static_cast<int>(n);
  std::atomic<int64_t> next{0};
  auto run = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < n;) work(i);
  };
  if (n_thread <= 1) return run();
  if (const RunOnTeam team = run_on_team.load(std::memory_order_relaxed))
    return team([](void* of) { (*static_cast<decltype(run)*>(of))(); }, &run, 0, 0);
  std::vector<std::thread> others;
  for (int t = 1; t < n_thread; ++t) others.emplace_back(run);
  run();
  for (auto& t : others) t.join();
}

// Asks for pages of two megabytes under a large output: memory fresh from the system is filled in by
// the page, and by pages of four kilobytes that takes several times as long as writing it.
inline void on_large_pages(void* p, int64_t n_byte) {
#if defined(__linux__)
  constexpr int64_t PAGE = 4096, LEAST = 4 << 20;
  if (n_byte < LEAST) return;
  const int64_t first = (reinterpret_cast<intptr_t>(p) + PAGE - 1) / PAGE * PAGE;
  const int64_t last = (reinterpret_cast<intptr_t>(p) + n_byte) / PAGE * PAGE;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Fresh pages cost more than the packing they hold, so buffers are kept; the smallest that is large
// enough is taken, or the largest grows.
class Scratch {
 public:
  explicit Scratch(size_t n_float) {
    {
      std::lock_guard<std::mutex> hold(lock());
      auto& all = pool();
      size_t best = all.size();
      for (size_t i = 0; i < all.size(); ++i) {
        if (best == all.size()) best = i;
        const size_t n = all[i].n, m = all[best].n;
        if (m < n_float ? n > m : n >= n_float && n < m) best = i;
      }
      if (best < all.size()) {
        buffer_ = all[best];
        all[best] = all.back();
        all.pop_back();
      }
    }
    if (buffer_.n < n_float) {
      std::free(buffer_.p);
      buffer_.n = (n_float + 1023) / 1024 * 1024;
      buffer_.p = static_cast<float*>(std::aligned_alloc(64, buffer_.n * sizeof(float)));
      if (!buffer_.p) std::abort();
      on_large_pages(buffer_.p, buffer_.n * sizeof(float));
    }
  }
  ~Scratch() {
    std::lock_guard<std::mutex> hold(lock());
    pool().push_back(buffer_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* get() const { return buffer_.p; }

 private:
  struct Buffer {
    float* p = nullptr;
    size_t n = 0;
  };
  static std::mutex& lock() {
    static std::mutex m;
    return m;
  }
  static std::vector<Buffer>& pool() {
    static std::vector<Buffer> free_list;
    return free_list;
  }
  Buffer buffer_;
};
