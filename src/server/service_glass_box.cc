// What the engine does, as a stream of events.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <chrono>

#include "server/service.h"

namespace kvasir::server {

asio::awaitable<void> Service::WatchSteps(const HttpRequest& request, HttpReply& reply) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPause = std::chrono::milliseconds(100);
  const Watching watching(glass_box_);
  co_await reply.Begin(200, "text/event-stream; charset=utf-8");
  if (request.method == "HEAD") {
    co_await reply.End();
    co_return;
  }
  bool open = co_await reply.Write(": the engine's steps\n\n");
  int64_t shown = 0;
  Clock::time_point last_write = Clock::now();
  asio::steady_timer timer(executor_);
  while (open && !draining_ && !reply.Gone()) {
    const GlassBox::Picture picture = glass_box_.Latest();
    std::string text;
    if (picture.number != shown) {
      shown = picture.number;
      text = "data: " + picture.json + "\n\n";
    } else if (Clock::now() - last_write >= options_.ping) {
      text = ": ping\n\n";
    }
    if (!text.empty()) {
      last_write = Clock::now();
      open = co_await reply.Write(text);
    }
    timer.expires_after(kPause);
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  co_await reply.End();
}

}  // namespace kvasir::server
