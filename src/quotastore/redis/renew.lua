-- Arguments: id, length. Replies 1 if it had not run out, else 0.
local function renew(at)
  local id = ARGV[at]
  local lease = known(id)
  if not lease or lease.settled then return 0 end
  local mine, alive = {}, 1
  for i, part in ipairs(lease.parts) do
    mine[i] = bucket(part.name)
    if lease.slot <= mine[i].swept then alive = 0 end
  end
  if alive == 1 then
    local slot = math.max(lease.slot, slot_of(tonumber(ARGV[at + 1]), mine))
    for i, part in ipairs(lease.parts) do
      release(mine[i], part.held, lease.slot, part.letter)
      hold(mine[i], part.held, slot, part.letter)
    end
    lease.slot = slot
    remember(id, lease)
  end
  return alive
end
