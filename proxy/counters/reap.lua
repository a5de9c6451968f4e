-- KEYS: funds. ARGV: epoch, cursor. One step through the hash: holds that nobody has renewed go, and funds that nobody
-- has asked for. Answers {1, the next cursor}.
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local found = redis.call('HSCAN', FUNDS, ARGV[2], 'COUNT', 200)
for at = 1, #found[2], 2 do
    local field, value = found[2][at], found[2][at + 1]
    if string.sub(field, 1, 2) == 'h:' then
        local own = read_hold(value)
        if own.expires ~= 0 and own.expires <= now then
            drop(string.sub(field, 3), own)
        end
    elseif string.sub(field, 1, 2) == 'f:' then
        local held, used = string.match(value, '(%S+) (%S+)$')
        if held == '0' and tonumber(used) < now / 1000000 - FORGET then
            redis.call('HDEL', FUNDS, field)
        end
    end
end
save()
return {1, found[1]}
