-- KEYS: what is known of the reservation, then all that may be touched. ARGV: time or 0, prefix, then for each claim: own, overflow,
-- list, most, spent, when its window is over (0: never) and the own bucket of the next window. Returns 0 (done), 1 (before) or 2 (there was no such reservation).
local now, prefix = clock(ARGV[1]), ARGV[2]
local lease = known(KEYS[1])
if lease and lease.settled then return 1 end
local N, buckets = 7, {}
if lease then
  for i, part in ipairs(lease.parts) do
    buckets[i] = load(prefix, part.name)
    sweep(buckets[i], now)
  end
  for i, part in ipairs(lease.parts) do
    local b = buckets[i]
    if lease.slot > b.swept then release(b, part.held, lease.slot, part.letter)
    elseif part.letter == 'c' then uncharge(b, part.held, lease.slot * 1000) end
    charge(b, tonumber(ARGV[2 + (i - 1) * N + 5] or 0), now, now)
  end
else
  for i = 1, (#ARGV - 2) / N do
    local at = 2 + (i - 1) * N
    local ends = tonumber(ARGV[at + 6])
    local name = choose(prefix, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], now)
    if ends > 0 and now >= ends then name = ARGV[at + 7] end
    buckets[i] = load(prefix, name)
    sweep(buckets[i], now)
  end
  for i = 1, (#ARGV - 2) / N do
    local at = 2 + (i - 1) * N
    charge(buckets[i], tonumber(ARGV[at + 5]), now, now)
    if ARGV[at + 2] ~= '' and buckets[i].name == ARGV[at + 1] then list_it(prefix, ARGV[at + 3], buckets[i], now, now) end
  end
end
redis.call('SET', KEYS[1], 'S', 'PXAT', int(now + REMEMBERED))
for _, b in ipairs(buckets) do save(b) end
return lease and 0 or 2
