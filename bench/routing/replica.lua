-- A replica that answers small requests at once; and, in the same process, load at a constant rate.
--
-- Runs inside wrk for its LuaJIT alone, which calls the C library as fast as C does: nothing else that every
-- machine has answers 80,000 a second on the core that it shares with the load. What it is to be stands in
-- REPLICA:
--
--   serve PORT SOCKET         a replica only, on a port and on a unix socket
--   load PORT ROUNDS SECONDS  a replica on a port, then load: lines "NAME PORT PATH TOKEN" on the standard input
--                             for each target (port 0: the replica itself), and "go RATE". A line of JSON
--                             for each round of each target, in turn.
--
-- The load does not care whether answers come. A closed loop (wrk's own) waits with a slow answer, and so
-- leaves out the requests that would have met the same slowness (coordinated omission). Here request n is due
-- at n / RATE; what it waits for a free connection, or for this program itself, is in its figure. The process
-- never sleeps meanwhile, so that neither load nor replica waits for the other to be scheduled.

local ffi = require("ffi")
local bit = require("bit")

ffi.cdef([[
struct timespec { long sec; long nsec; };
struct path { uint16_t family; char name[108]; };
struct address { uint16_t family; uint16_t port; uint32_t host; char zero[8]; };
int clock_gettime(int, struct timespec *);
int socket(int, int, int);
int connect(int, const struct address *, unsigned);
int bind(int, const void *, unsigned);
int listen(int, int);
int accept4(int, void *, void *, int);
int setsockopt(int, int, int, const void *, unsigned);
long send(int, const void *, size_t, int);
long recv(int, void *, size_t, int);
int close(int);
int epoll_create1(int);
]])
-- the kernel packs this on x86-64 alone
ffi.cdef(
  "struct event { uint32_t events; uint64_t data; } "
    .. (ffi.arch == "x64" and "__attribute__((packed))" or "")
    .. ";"
)
ffi.cdef([[
int epoll_ctl(int, int, int, struct event *);
int epoll_wait(int, struct event *, int, int);
]])
local C = ffi.C

local AF_UNIX, AF_INET, SOCK_STREAM, SOL_SOCKET, SO_REUSEADDR, IPPROTO_TCP, TCP_NODELAY = 1, 2, 1, 1, 2, 6, 1
local EPOLLIN, EPOLL_CTL_ADD, CLOCK_MONOTONIC, SOCK_NONBLOCK = 1, 1, 1, 2048
local DONTWAIT = 0x40 + 0x4000 -- MSG_DONTWAIT, MSG_NOSIGNAL
local CONNECTIONS, MOST, BRACE, LATE = 128, 65536, string.byte("}"), 1e6
local LISTENER, REPLICA, CLIENT = 1, 2, 3
local BODY = '{"data": [[1.0, 2.0, 3.0, 4.0, 5]]}'
local ANSWER = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"result":[1.0]}'

local now_, one = ffi.new("struct timespec"), ffi.new("int[1]", 1)
local function clock()
  C.clock_gettime(CLOCK_MONOTONIC, now_)
  return tonumber(now_.sec) * 1e9 + tonumber(now_.nsec)
end

local function fail(what)
  io.stderr:write(what, " failed: errno ", ffi.errno(), "\n")
  os.exit(1)
end

local function address(port)
  local swapped = bit.bor(bit.lshift(bit.band(port, 255), 8), bit.rshift(port, 8))
  local host = ffi.abi("le") and 0x0100007f or 0x7f000001
  return ffi.new("struct address", AF_INET, ffi.abi("le") and swapped or port, host)
end

local poller, events = C.epoll_create1(0), ffi.new("struct event[256]")
local buffer, role = ffi.new("uint8_t[?]", MOST), {}

local function watch(fd, as)
  local event = ffi.new("struct event", EPOLLIN, fd)
  if C.epoll_ctl(poller, EPOLL_CTL_ADD, fd, event) ~= 0 then fail("epoll_ctl") end
  role[fd] = as
end

local function drop(fd)
  role[fd] = nil
  C.close(fd)
end

local function listen(port, path)
  local fd = C.socket(path and AF_UNIX or AF_INET, SOCK_STREAM + SOCK_NONBLOCK, 0)
  C.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, one, 4)
  local at = path and ffi.new("struct path", AF_UNIX, path) or address(port)
  if C.bind(fd, at, ffi.sizeof(at)) ~= 0 then fail("bind") end
  if C.listen(fd, 1024) ~= 0 then fail("listen") end
  watch(fd, LISTENER)
end

local function accept(listener)
  while true do
    local fd = C.accept4(listener, nil, nil, 0)
    if fd < 0 then return end
    C.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, one, 4)
    watch(fd, REPLICA)
  end
end

local function reply(fd)
  local size = tonumber(C.recv(fd, buffer, MOST, DONTWAIT))
  if size <= 0 then
    drop(fd)
  elseif buffer[size - 1] == BRACE then -- else its body is still to come
    C.send(fd, ANSWER, #ANSWER, DONTWAIT)
  end
end

-- one target for some seconds; its latencies in order, and counts
local function round(target, rate, seconds)
  local message = table.concat({
    "POST ", target.path, " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n",
    "Authorization: Bearer ", target.token, "\r\nContent-Length: ", #BODY, "\r\n\r\n", BODY,
  })
  local free, first, last = {}, 1, 0 -- a queue: each connection has its turn
  local due_of, clients = {}, {}
  local function connect()
    local fd = C.socket(AF_INET, SOCK_STREAM, 0)
    if C.connect(fd, address(target.port), 16) ~= 0 then fail("connect") end
    C.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, one, 4)
    watch(fd, CLIENT)
    clients[fd], last = true, last + 1
    free[last] = fd
  end
  for _ = 1, CONNECTIONS do connect() end

  local latencies, count, sent, failed, late, open = {}, 0, 0, 0, 0, 0
  local step, began = 1e9 / rate, clock() + 1e7
  local warm, finish = began + math.min(1, seconds / 4) * 1e9, began + seconds * 1e9
  local due, had_room = began, true
  while due < finish or open > 0 do
    local now = clock()
    while due <= now and due < finish and first <= last do
      local fd = free[first]
      free[first], first = nil, first + 1
      if had_room and now - due > LATE then late = late + 1 end
      C.send(fd, message, #message, DONTWAIT)
      due_of[fd], open, sent = due, open + 1, sent + 1
      due = began + sent * step
    end
    had_room = first <= last
    if now > finish + 5e9 then -- never answered
      failed = failed + open
      break
    end
    for index = 0, C.epoll_wait(poller, events, 256, 0) - 1 do
      local fd = tonumber(events[index].data)
      local as = role[fd]
      if as == REPLICA then
        reply(fd)
      elseif as == LISTENER then
        accept(fd)
      elseif as == CLIENT then
        local size = tonumber(C.recv(fd, buffer, MOST, DONTWAIT))
        local was = due_of[fd]
        if size <= 0 or not was then
          if was then failed, open, due_of[fd] = failed + 1, open - 1, nil end
          clients[fd] = nil
          drop(fd)
          connect()
        elseif buffer[size - 1] == BRACE then
          if buffer[9] ~= 50 then -- "HTTP/1.1 2.."
            failed = failed + 1
          elseif was >= warm then
            count = count + 1
            latencies[count] = clock() - was
          end
          due_of[fd], open, last = nil, open - 1, last + 1
          free[last] = fd
        end
      end
    end
  end
  local took = math.max((clock() - began) / 1e9, seconds)
  for fd in pairs(clients) do drop(fd) end
  table.sort(latencies)
  local function share(part)
    return (latencies[math.min(math.floor(count * part) + 1, count)] or 0 / 0) / 1e6
  end
  io.write(string.format(
    '{"target": "%s", "rate": %.1f, "p50_ms": %.4f, "p99_ms": %.4f, "late": %.5f, "failed": %d, "timed": %d}\n',
    target.name, sent / took, share(0.5), share(0.99), late / math.max(sent, 1), failed, count
  ))
  io.flush()
end

local function serve()
  while true do
    for index = 0, C.epoll_wait(poller, events, 256, -1) - 1 do
      local fd = tonumber(events[index].data)
      if role[fd] == LISTENER then accept(fd) else reply(fd) end
    end
  end
end

local function load(port, rounds, seconds)
  local targets = {}
  for line in io.lines() do
    local rate = line:match("^go (%d+)$")
    if rate then
      for _ = 1, rounds do
        for _, target in ipairs(targets) do round(target, tonumber(rate), seconds) end
      end
      os.exit(0)
    end
    local name, to, path, token = line:match("^(%S+) (%d+) (%S+) (%S+)$")
    to = tonumber(to) == 0 and port or tonumber(to)
    targets[#targets + 1] = { name = name, port = to, path = path, token = token }
  end
  os.exit(1)
end

local words = {}
for word in os.getenv("REPLICA"):gmatch("%S+") do words[#words + 1] = word end
listen(tonumber(words[2]))
if words[1] == "serve" then listen(nil, words[3]) end
io.write("listening\n")
io.flush()
if words[1] == "serve" then
  serve()
else
  load(tonumber(words[2]), tonumber(words[3]), tonumber(words[4]))
end
