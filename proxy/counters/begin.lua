-- KEYS: funds. ARGV: epoch. What was before it is cleared away.
local found = number_of(redis.call('HGET', FUNDS, 'epoch'))
if found and found >= number_of(ARGV[1]) then
    return {0, found}
end
redis.call('UNLINK', FUNDS)
redis.call('HSET', FUNDS, 'epoch', ARGV[1])
return {1}
