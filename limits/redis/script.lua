-- One exchange between a node and what all nodes share. doc.go tells the scheme; times are microseconds.
--
-- KEYS  1 the state, 2 the nodes, 3… one per limit
-- ARGV  what the node says of itself (the numbered ones below), then nine per limit
local op, name, sid = ARGV[1], ARGV[3], ARGV[4]
-- Live nodes by the roster: 0 = unknown; below 0 = so many, and not all of them count this one yet. What to take while
-- nobody has ever known.
local count, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local ttl, deadline = tonumber(ARGV[7]), tonumber(ARGV[8])
local seenEpoch, seenCall = tonumber(ARGV[9]), tonumber(ARGV[10])
local credit, ahead = tonumber(ARGV[11]), tonumber(ARGV[12])
local stepped, knownList, settled = ARGV[13] == '1', ARGV[14], tonumber(ARGV[15])
local back = ARGV[16] == '1' -- the process has had a session before, and tells what it has sent since
local FIXED, EACH, POLL, EPS, KEEP = 16, 9, 10000, 1e-9, 2592000

local now = tonumber(ARGV[2])
if now == 0 then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end
local function text(x) return string.format('%.17g', x) end
local function whole(x) return string.format('%.0f', x) end

local st = redis.call('HMGET', KEYS[1], 'epoch', 'paid', 'at', 'calls', 'nodes', 'full', 'fullsince', 'idle', 'list',
  'last', 'part', 'grown', 'grownat', 'high', 'highat', 'was', 'fell')
local epoch, paid, at, calls = tonumber(st[1] or 0), tonumber(st[2] or 0), tonumber(st[3] or 0), tonumber(st[4] or 0)
local nodes, full, fullSince, idle = tonumber(st[5] or most), st[6] == '1', tonumber(st[7] or 0), st[8] == '1'
local list, last = st[9] or '0', tonumber(st[10] or 0)
local before, grown, grownAt = tonumber(st[11] or 1), tonumber(st[12] or 0), tonumber(st[13] or 0)
local high, highAt, was, fell = tonumber(st[14] or 0), tonumber(st[15] or 0), tonumber(st[16] or 0), tonumber(st[17] or 0)

if op == 'hello' then return {'hello', whole(now), whole(epoch), whole(calls)} end
if deadline > 0 and now > deadline then return {'late', whole(now)} end

local sids, ends, counts = {}, {}, {} -- by name
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local s, e, c = string.match(flat[i + 1], '^(%S+) (%S+) (%S+)$')
  sids[flat[i]], ends[flat[i]], counts[flat[i]] = s, tonumber(e), tonumber(c)
end

local lost = epoch == 0 or seenEpoch > epoch or (seenEpoch == epoch and seenCall > calls) or now < last - 1000000
if op == 'join' then
  if lost or stepped then
    -- Nothing is known of what has been sent: every limit owes its whole burst, and pays nothing off while permits that
    -- were given out before may still be used.
    redis.call('DEL', KEYS[1], KEYS[2])
    epoch, calls, nodes, full, idle, list = math.max(epoch, seenEpoch) + 1, 0, most, false, false, '0'
    before, grown, grownAt, high, highAt, was, fell = 1, 0, 0, 0, 0, 0, 0
    sids, ends, counts = {}, {}, {}
    if credit > 0 then paid, at = credit, now else paid, at = 0, now + ttl end
  end
elseif lost or sids[name] ~= sid or ends[name] < now then
  return {'gone', whole(now)}
end

-- Debts are paid in the nodes' common time. It stands still for the share of a node that is cut off, which then uses its
-- share of each rate by itself. Such a share is as large as that node believes: who has come and is not counted by all
-- does not make it smaller yet. Who does not know how many there are is counted by nobody.
local function census(lives)
  local any, here, agreed = false, 0, 0
  for _, c in pairs(counts) do any = any or c ~= 0 end
  local function add(n, by)
    if not any or counts[n] ~= 0 then here = here + by end
    if not any or counts[n] > 0 then agreed = agreed + by end
  end
  for n in pairs(counts) do
    if lives(n) then add(n, 1) end
  end
  local function part()
    if idle or here >= nodes then return 1 end
    return agreed / nodes
  end
  return part, function(n) add(n, -1) end
end
if now > at then
  local lapses = {}
  for n, e in pairs(ends) do
    if e > at and e < now then lapses[#lapses + 1] = n end
  end
  table.sort(lapses, function(a, b) return ends[a] < ends[b] end)
  local part, lapse = census(function(n) return ends[n] > at end)
  for _, n in ipairs(lapses) do
    paid, at = paid + (ends[n] - at) * part(), ends[n]
    lapse(n)
    before = math.min(before, part())
  end
  paid, at = paid + (now - at) * part(), now
end

local changed = false
for n, e in pairs(ends) do
  if e < now then
    sids[n], ends[n], counts[n], changed = nil, nil, nil, true
    redis.call('HDEL', KEYS[2], n)
  end
end
if op == 'leave' then
  sids[name], ends[name], counts[name], changed = nil, nil, nil, true
  redis.call('HDEL', KEYS[2], name)
  idle = next(sids) == nil
else
  changed = changed or sids[name] ~= sid
  sids[name], ends[name], counts[name], idle = sid, now + ttl, count, false
  redis.call('HSET', KEYS[2], name, sid .. ' ' .. whole(now + ttl) .. ' ' .. whole(count))
end
local live, sessions, known = {}, 0, nodes
nodes = 0
for n, s in pairs(sids) do
  live[s] = true
  sessions = sessions + 1
  nodes = math.max(nodes, math.abs(counts[n]))
end
if nodes == 0 then nodes = known end -- nobody has a count now
-- A limit that was too small to be divided may be somebody's alone until every node has counted anew.
if nodes >= high then
  high, highAt = nodes, now
elseif now - highAt > settled then
  high, highAt, was, fell = nodes, now, math.max(was, high), paid
end
local part = census(function() return true end)()
-- A share is divided anew whose node is gone or was not counted: nobody tells what has been sent of it. Who comes back
-- tells what it owes of its own.
local growth = part - before
if back then growth = math.max(growth - 1 / known, (known - nodes) / known) end
if growth > 0 and part > before and credit == 0 then grown, grownAt = grown + growth, paid end
if part < 1 then
  full = false
elseif not full then
  -- A limit whose burst is too small to be divided was one node's business meanwhile. It comes back in debt, when every
  -- node has heard of it.
  full, fullSince = true, credit > 0 and 0 or paid + ttl
end
if changed then list = string.format('%d', tonumber(list) + 1) end
calls = calls + 1
redis.call('HSET', KEYS[1], 'epoch', whole(epoch), 'paid', text(paid), 'at', whole(at), 'calls', whole(calls),
  'nodes', nodes, 'full', full and '1' or '0', 'fullsince', text(fullSince), 'idle', idle and '1' or '0', 'list', list,
  'last', whole(now), 'part', text(part), 'grown', text(grown), 'grownat', text(grownAt),
  'high', whole(high), 'highat', whole(highAt), 'was', whole(was), 'fell', text(fell))
redis.call('EXPIRE', KEYS[1], KEEP)
redis.call('EXPIRE', KEYS[2], KEEP)

local names = {}
if knownList ~= list then
  for n in pairs(sids) do names[#names + 1] = n end
end
local out = {'ok', whole(now), whole(epoch), whole(calls), whole(nodes), whole(sessions), full and '1' or '0', list, names}

for k = 3, #KEYS do
  local arg = FIXED + (k - 3) * EACH
  local rate, burst = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local spent, age = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4]) -- of leases, and how long ago at least
  local keep, cost, want = tonumber(ARGV[arg + 5]), tonumber(ARGV[arg + 6]), tonumber(ARGV[arg + 7])
  local pause, alone = tonumber(ARGV[arg + 8]), tonumber(ARGV[arg + 9]) -- alone: the debt that the node made by itself
  local debt, since, old, paused, known, share = 0, paid, rate, 0, false, 0
  local own, holds = 'h:' .. sid, {}
  local fields = redis.call('HGETALL', KEYS[k])
  for i = 1, #fields, 2 do
    local f, v = fields[i], fields[i + 1]
    if f == 'debt' then debt = tonumber(v)
    elseif f == 'since' then since = tonumber(v)
    elseif f == 'rate' then old = tonumber(v)
    elseif f == 'paused' then paused = tonumber(v)
    elseif f == 'grown' then share = tonumber(v)
    elseif f == 'epoch' then known = tonumber(v) == epoch
    elseif f ~= own then holds[f] = tonumber(v) end
  end
  local others, gone = 0, 0 -- what other nodes hold, and what those held that are no more: it counts as used
  for f, v in pairs(holds) do
    if known and live[string.sub(f, 3)] then
      others = others + v
    else
      gone = gone + v
      redis.call('HDEL', KEYS[k], f)
    end
  end
  if not known then -- in this epoch
    debt, since, old, gone, share = math.max(0, burst - rate * paid / 1e6), paid, rate, 0, 0
  end
  local small = burst < high
  local passed = math.max(0, paid - since) / 1e6
  age = math.min(age * part / 1e6, passed)
  debt = math.max(0, debt - old * (passed - age)) + spent
  debt = math.max(0, debt - old * age) + gone
  if small then debt = math.max(debt, alone) else debt = debt + alone end
  -- All that is not paid off of what anybody has sent is a burst at most.
  local new = math.max(0, burst * math.min(1, grown - share) - rate * (paid - grownAt) / 1e6)
  debt = math.max(debt, math.min(burst, debt + new))
  if small and full then debt = math.max(debt, burst - rate * (paid - fullSince) / 1e6) end
  if not small and burst < was then debt = math.max(debt, burst - rate * (paid - fell) / 1e6) end
  if pause > 0 then paused = math.max(paused, now + pause) end

  local grant, wait = 0, 0
  if want > 0 and op ~= 'leave' then
    if paused > now then
      wait = paused - now
    elseif small and not full then
      wait = POLL * 5
    else
      local room = burst * part - debt - others - keep
      local missing = cost - room
      local possible = missing <= debt + EPS -- when the debt is paid; else somebody has to give something back
      if cost > burst * part then -- goes when nothing is owed
        missing, possible = debt, others + keep <= EPS
      end
      if part <= 0 then
        wait = POLL * 5
      elseif missing <= EPS and possible then
        grant = math.max(cost, math.min(want, cost * math.floor((room + EPS) / cost)))
      elseif possible then
        wait = math.ceil(missing / (rate * part) * 1e6)
        if wait <= ahead and keep == 0 then grant = cost end
      else
        wait = POLL
      end
      wait = math.min(wait, 3e15)
    end
  end
  local held = keep + grant
  if held > 0 then redis.call('HSET', KEYS[k], own, text(held)) else redis.call('HDEL', KEYS[k], own) end
  redis.call('HSET', KEYS[k], 'debt', text(debt), 'since', text(paid), 'rate', text(rate), 'paused', whole(paused),
    'epoch', whole(epoch), 'grown', text(grown))
  -- Long after everything is paid: the common time may stand still for a while.
  local needed = 10 * (debt + held) / rate + math.max(0, paused - now) / 1e6
  redis.call('EXPIRE', KEYS[k], math.min(KEEP, 3600 + math.ceil(needed)))
  out[#out + 1] = text(grant)
  out[#out + 1] = whole(wait)
  out[#out + 1] = whole(math.max(0, paused - now))
end
return out
