-- KEYS: what is known of the reservation. ARGV: time or 0, prefix, length. Returns 1 if it had not run out, else 0.
local now, prefix = clock(ARGV[1]), ARGV[2]
local lease = known(KEYS[1])
if not lease or lease.settled then return 0 end
local buckets, alive = {}, 1
for i, part in ipairs(lease.parts) do
  buckets[i] = load(prefix, part.name)
  sweep(buckets[i], now)
  if lease.slot <= buckets[i].swept then alive = 0 end
end
if alive == 1 then
  local slot = math.max(lease.slot, slot_of(tonumber(ARGV[3]), now, buckets))
  for i, part in ipairs(lease.parts) do
    release(buckets[i], part.held, lease.slot, part.letter)
    hold(buckets[i], part.held, slot, part.letter)
  end
  lease.slot = slot
  remember(KEYS[1], lease)
end
for _, b in ipairs(buckets) do save(b) end
return alive
