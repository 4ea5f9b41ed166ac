-- What all scripts share. Numbers are integers below 2^53, which Lua's are exact for.
--
-- A call does one or several steps, one after the other, as if each were alone. ARGV: time or 0, prefix, then for each step how many arguments it
-- has, which it is, and its own. KEYS: all that may be touched. Everything is read and decided before anything is written, so that a step that fails
-- leaves nothing behind; and what several steps change is read and written once.
local MAX, PARTS, SLACK, REMEMBERED = 9007199254740991, 60, 600000, 90000000

local function int(n) return string.format('%.0f', n) end

local function clock(given)
  given = tonumber(given)
  if given > 0 then return given end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local now, prefix = clock(ARGV[1]), ARGV[2]

-- What this call has read: buckets by name, leases by id, and of lists of subjects who is in them and who came in by this call.
local buckets, leases, lists = {}, {}, {}

-- floor(a * b / c) and whether anything is left over; a < 2^53, b and c <= 10^9. Never beyond 2^53 on the way, unless the result is.
local function muldiv(a, b, c)
  local high, low = math.floor(b / 32768), b % 32768
  local q, r = math.floor(a / c), a % c
  local t = r * high
  local q1, r1 = math.floor(t / c), t % c
  t = r1 * 32768
  local q2, r2 = math.floor(t / c), t % c
  t = r2 + r * low
  return q * b + q1 * 32768 + q2 + math.floor(t / c), t % c > 0
end

local function granule(b) return math.max(1, math.ceil(b.length / PARTS)) end

local function leaves(b, part) return (part + PARTS + 1) * granule(b) end

-- Reads a bucket. Its name ends with its window: f, rLENGTH or aSTART-END.
local function read(name)
  local window = string.match(name, ':([^:]*)$')
  local b = { key = prefix .. 'b:' .. name, name = name, kind = string.sub(window, 1, 1), changes = {}, gone = {}, dirty = false }
  if b.kind == 'r' then b.length = tonumber(string.sub(window, 2)) end
  if b.kind == 'a' then b.ends = tonumber(string.match(window, '-(%d+)$')) end
  local v = redis.call('HMGET', b.key, 's', 'h', 't', 'm', 'f', 'x')
  b.spent, b.held, b.swept = tonumber(v[1] or 0), tonumber(v[2] or 0), tonumber(v[3] or 0)
  b.last, b.first, b.expires = tonumber(v[4] or 0), tonumber(v[5] or 0), tonumber(v[6] or 0)
  b.top = b.expires
  return b
end

-- A field as it is after what was done in this step.
local function get(b, field)
  if b.gone[field] then return 0 end
  return b.changes[field] or tonumber(redis.call('HGET', b.key, field) or 0)
end

local function put(b, field, value)
  b.dirty = true
  if value == 0 then b.changes[field] = nil; b.gone[field] = true
  else b.gone[field] = nil; b.changes[field] = value end
end

local function over_after(b, at)
  if b.kind == 'a' then return math.max(b.ends, at) end
  if b.kind == 'r' then return leaves(b, math.floor(at / granule(b))) end
  return at
end

local function charge(b, amount, at)
  amount = math.min(amount, MAX - b.spent)
  if amount == 0 or b.kind == 'f' then return end
  if b.kind == 'r' then
    local part = math.floor(at / granule(b))
    if part < math.floor(now / granule(b)) - PARTS then return end
    put(b, 'r' .. int(part), get(b, 'r' .. int(part)) + amount)
    if b.spent == 0 or part < b.first then b.first = part end
  end
  b.spent = b.spent + amount
  b.dirty = true
  b.top = math.max(b.top, over_after(b, math.max(at, now)))
end

-- Looks for the first part of a rolling window that is not empty, dropping those before `keep`.
local function advance(b, keep)
  local part = b.first
  while b.spent > 0 do
    -- Two windows on there is nothing more, unless the clock went back by more than one.
    if part > b.first + 2 * PARTS + 2 then b.spent = 0; break end
    local field = 'r' .. int(part)
    local amount = get(b, field)
    if amount > 0 then
      if part >= keep then break end
      b.spent = math.max(0, b.spent - amount)
      put(b, field, 0)
    end
    part = part + 1
  end
  b.first = part
  b.dirty = true
end

local function uncharge(b, amount, at)
  if b.kind == 'a' then b.spent = math.max(0, b.spent - amount); b.dirty = true end
  if b.kind ~= 'r' then return end
  local part = math.floor(at / granule(b))
  local charged = get(b, 'r' .. int(part))
  amount = math.min(amount, charged)
  if amount == 0 then return end
  put(b, 'r' .. int(part), charged - amount)
  b.spent = math.max(0, b.spent - amount)
  if part == b.first and charged == amount then advance(b, 0) end
end

-- Moves out what has run out: holds by their second, and parts that a rolling window has left behind.
local function sweep(b)
  local second = math.floor(now / 1000)
  if second > b.swept then
    local till = math.min(second, b.last)
    if b.held > 0 and till > b.swept then
      -- No lease is longer than an hour, so nothing held is older than that when the next is held.
      local from, fields = math.max(b.swept + 1, till - 4000), {}
      for slot = from, till do
        fields[#fields + 1] = 'h' .. int(slot)
        fields[#fields + 1] = 'c' .. int(slot)
      end
      for i = 1, #fields, 500 do
        local n = math.min(i + 499, #fields)
        local v = redis.call('HMGET', b.key, unpack(fields, i, n))
        for j = i, n do
          local amount = tonumber(v[j - i + 1] or 0)
          if amount > 0 then
            put(b, fields[j], 0)
            b.held = math.max(0, b.held - amount)
            if string.sub(fields[j], 1, 1) == 'c' then
              charge(b, amount, tonumber(string.sub(fields[j], 2)) * 1000)
            end
          end
        end
      end
    end
    b.dirty = b.dirty or (b.held > 0 and second - b.swept > 8)
    b.swept = second
  end
  if b.kind == 'r' and b.spent > 0 then
    local keep = math.floor(now / granule(b)) - PARTS
    if b.first < keep then advance(b, keep) end
  end
end

-- A bucket as it is now.
local function bucket(name)
  local b = buckets[name]
  if not b then
    b = read(name)
    sweep(b)
    buckets[name] = b
  end
  return b
end

local function hold(b, amount, slot, letter)
  amount = math.min(amount, MAX - b.held)
  if amount > 0 then
    local field = letter .. int(slot)
    put(b, field, get(b, field) + amount)
    if b.held == 0 or slot > b.last then b.last = slot end
    b.held = b.held + amount
    b.top = math.max(b.top, over_after(b, slot * 1000))
  end
  return amount
end

local function release(b, amount, slot, letter)
  local field = letter .. int(slot)
  local share = get(b, field)
  amount = math.min(amount, share)
  if amount == 0 then return end
  put(b, field, share - amount)
  b.held = math.max(0, b.held - amount)
end

local function save(b)
  if not b.dirty then return end
  local set = { 's', int(b.spent), 'h', int(b.held), 't', int(b.swept), 'm', int(b.last), 'f', int(b.first) }
  for field, value in pairs(b.changes) do
    set[#set + 1] = field
    set[#set + 1] = int(value)
  end
  local later = b.top > b.expires
  if later then set[#set + 1] = 'x'; set[#set + 1] = int(b.top) end
  local gone = {}
  for field in pairs(b.gone) do gone[#gone + 1] = field end
  for i = 1, #set, 500 do redis.call('HSET', b.key, unpack(set, i, math.min(i + 499, #set))) end
  for i = 1, #gone, 500 do redis.call('HDEL', b.key, unpack(gone, i, math.min(i + 499, #gone))) end
  if later then redis.call('PEXPIREAT', b.key, int(b.top + SLACK)) end
end

local function resets(b)
  if b.kind == 'a' then return b.ends end
  if b.kind == 'r' and b.spent > 0 then return leaves(b, b.first) end
  return 0
end

-- Later than all that was moved out, even if the clock went back since.
local function slot_of(length, all)
  local from = now
  for _, b in ipairs(all) do from = math.max(from, b.swept * 1000) end
  return math.ceil((from + length) / 1000)
end

local function list_of(name)
  if not lists[name] then lists[name] = { here = {}, new = {}, count = 0 } end
  return lists[name]
end

-- The bucket a claim is paid into: its own, or the one of those that come too late.
local function choose(own, overflow, list, most)
  if overflow == '' then return own end
  local l, key = list_of(list), prefix .. 'n:' .. list
  if l.here[own] then return own end
  local till = redis.call('ZSCORE', key, own)
  if till and tonumber(till) > now then
    l.here[own] = true
    return own
  end
  if redis.call('ZCOUNT', key, '(' .. int(now), '+inf') + l.count < tonumber(most) then return own end
  return overflow
end

local function list_it(list, b, at)
  local l = list_of(list)
  if not l.here[b.name] then l.here[b.name] = true; l.count = l.count + 1 end
  l.new[b.name] = math.max(l.new[b.name] or 0, over_after(b, at))
end

local function save_list(name, l)
  local key, latest = prefix .. 'n:' .. name, 0
  for own, till in pairs(l.new) do
    if latest == 0 then redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
    redis.call('ZADD', key, 'GT', int(till), own)
    latest = math.max(latest, till)
  end
  if latest == 0 then return end
  -- Another is to be there longer, perhaps.
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  redis.call('PEXPIREAT', key, int(math.max(latest, tonumber(last[2])) + SLACK))
end

-- What is known of a reservation: nothing, that it is settled, or until which second it holds what.
local function known(id)
  if leases[id] then return leases[id] end
  local text = redis.call('GET', prefix .. 'l:' .. id)
  if not text then return nil end
  local lease, words = { settled = text == 'S', parts = {} }, {}
  leases[id] = lease
  if lease.settled then return lease end
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  lease.slot, lease.output = tonumber(words[1]), tonumber(words[2])
  for i = 3, #words, 3 do
    lease.parts[#lease.parts + 1] = { held = tonumber(words[i]), letter = words[i + 1], name = words[i + 2] }
  end
  return lease
end

local function remember(id, lease)
  lease.dirty = true
  leases[id] = lease
end

-- S when it is settled, else SLOT OUTPUT and for each part HELD LETTER NAME.
local function save_lease(id, lease)
  if not lease.dirty then return end
  local words, at = { 'S' }, now
  if not lease.settled then
    words, at = { int(lease.slot), int(lease.output) }, lease.slot * 1000
    for _, part in ipairs(lease.parts) do
      words[#words + 1] = int(part.held)
      words[#words + 1] = part.letter
      words[#words + 1] = part.name
    end
  end
  redis.call('SET', prefix .. 'l:' .. id, table.concat(words, ' '), 'PXAT', int(at + REMEMBERED))
end

-- Does the steps, each of the kind that is named: it is told where its arguments begin and end. Returns their replies.
local function run(kinds)
  local replies, at = {}, 3
  while at <= #ARGV do
    local last = at + tonumber(ARGV[at])
    replies[#replies + 1] = kinds[ARGV[at + 1]](at + 2, last)
    at = last + 1
  end
  for id, lease in pairs(leases) do save_lease(id, lease) end
  for _, b in pairs(buckets) do save(b) end
  for name, l in pairs(lists) do save_list(name, l) end
  return replies
end
