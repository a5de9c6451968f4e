-- KEYS: funds, a key per place. ARGV: epoch (empty: no credit is held), whose place it is per place; ids of holds.
-- Answers {1, the ids of the holds that are not there…}. Places that are not there stay so: their request has ended.
for place = 2, #KEYS do
    redis.call('ZADD', KEYS[place], 'XX', text(now + HOLD), ARGV[place])
    redis.call('PEXPIRE', KEYS[place], text(2 * HOLD / 1000))
end
if ARGV[1] == '' then
    return {1}
end
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local missing = {1}
for at = #KEYS + 1, #ARGV do
    local own = hold(ARGV[at])
    if not own then
        missing[#missing + 1] = ARGV[at]
    elseif own.expires ~= 0 then
        write_hold(ARGV[at], own.names, own.amount, now + HOLD)
    end
end
return missing
