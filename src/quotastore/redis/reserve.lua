-- Arguments: id, lease, wanted, least, groups (a or o each), then for each claim: own, overflow, list, most, amount, fixed, numerator,
-- denominator, mode (h or p), shadow (0 or 1), letter (h or c), group (from 1), when the window is over (0: never).
-- Replies 1 (granted) or 0 (refused), time, output or the claim (from 0), overflowed, and for each claim spent, held, resets_at;
-- or 2 (settled before) or 3 (a window is over), time.
local CLAIM = 13
local function reserve(at, last)
  local id = ARGV[at]
  local lease = known(id)
  if lease and lease.settled then return { 2, now } end
  local claims, mine, overflowed = {}, {}, 0
  for i = at + 5, last, CLAIM do
    local ends = tonumber(ARGV[i + 12])
    if ends > 0 and now >= ends and not lease then return { 3, now } end
    claims[#claims + 1] = {
      own = ARGV[i], overflow = ARGV[i + 1], list = ARGV[i + 2], most = ARGV[i + 3], amount = tonumber(ARGV[i + 4]),
      fixed = tonumber(ARGV[i + 5]), num = tonumber(ARGV[i + 6]), den = tonumber(ARGV[i + 7]), holds = ARGV[i + 8] == 'h',
      shadow = ARGV[i + 9] == '1', letter = ARGV[i + 10], group = tonumber(ARGV[i + 11]),
    }
  end
  for i, c in ipairs(claims) do
    local name
    if lease then name = lease.parts[i] and lease.parts[i].name or c.own
    else
      name = choose(c.own, c.overflow, c.list, c.most)
      if name ~= c.own then overflowed = overflowed + 1 end
    end
    mine[i] = bucket(name)
  end

  local status, result = 1, 0
  if lease then
    result = lease.output
  else
    local wanted = tonumber(ARGV[at + 2])
    local least = math.min(tonumber(ARGV[at + 3]), wanted)
    local output, refused, any = wanted, nil, {}
    for i, c in ipairs(claims) do
      if not c.shadow then
        local b, longest = mine[i], nil
        local room = c.amount - b.spent - b.held
        if not c.holds then
          if room > 0 then longest = MAX end
        elseif room >= c.fixed then
          longest = MAX
          if c.num > 0 then longest = math.min(MAX, (muldiv(room - c.fixed, c.den, c.num))) end
        end
        if longest and longest < least then longest = nil end
        if string.sub(ARGV[at + 4], c.group, c.group) == 'o' then
          local best = any[c.group] or { first = i }
          if longest and longest > (best.longest or -1) then best.longest = longest end
          any[c.group] = best
        elseif longest then output = math.min(output, longest)
        else refused = refused or i end
      end
    end
    for _, best in pairs(any) do
      if best.longest then output = math.min(output, best.longest)
      else refused = math.min(refused or best.first, best.first) end
    end
    if refused then
      status, result = 0, refused - 1
    else
      result = output
      lease = { slot = slot_of(tonumber(ARGV[at + 1]), mine), output = output, parts = {} }
      for i, c in ipairs(claims) do
        local b, bound = mine[i], 0
        if c.holds then
          local cost, more = muldiv(output, c.num, c.den)
          bound = math.min(MAX, c.fixed + cost + (more and 1 or 0))
        end
        lease.parts[i] = { held = hold(b, bound, lease.slot, c.letter), letter = c.letter, name = b.name }
      end
      remember(id, lease)
      for i, c in ipairs(claims) do
        if c.overflow ~= '' and mine[i].name == c.own then list_it(c.list, mine[i], lease.slot * 1000) end
      end
    end
  end
  local reply = { status, now, result, overflowed }
  for _, b in ipairs(mine) do
    reply[#reply + 1] = b.spent
    reply[#reply + 1] = b.held
    reply[#reply + 1] = resets(b)
  end
  return reply
end
