-- Arguments: id, then for each claim: own, overflow, list, most, spent, when its window is over (0: never) and the own bucket of
-- the next window. Replies 0 (done), 1 (before) or 2 (there was no such reservation).
local SPENT = 7
local function settle(first, last)
  local id, at = ARGV[first], first + 1
  local lease = known(id)
  if lease and lease.settled then return 1 end
  if lease then
    for i, part in ipairs(lease.parts) do
      local b = bucket(part.name)
      if lease.slot > b.swept then release(b, part.held, lease.slot, part.letter)
      elseif part.letter == 'c' then uncharge(b, part.held, lease.slot * 1000) end
      local spent = at + (i - 1) * SPENT + 4
      if spent <= last then charge(b, tonumber(ARGV[spent]), now) end
    end
  else
    for claim = at, last, SPENT do
      local own, ends = ARGV[claim], tonumber(ARGV[claim + 5])
      local name = choose(own, ARGV[claim + 1], ARGV[claim + 2], ARGV[claim + 3])
      if ends > 0 and now >= ends then name = ARGV[claim + 6] end
      local b = bucket(name)
      charge(b, tonumber(ARGV[claim + 4]), now)
      if ARGV[claim + 1] ~= '' and b.name == own then list_it(ARGV[claim + 2], b, now) end
    end
  end
  remember(id, { settled = true })
  return lease and 0 or 2
end
