-- KEYS: funds. ARGV: epoch; of each hold: id, amount (-1: it goes), 1 if it is settled else 0, number of funds, their
-- names. It becomes exactly that, whatever it was.
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local at = 2
while at <= #ARGV do
    local id, amount, settled, count = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', tonumber(ARGV[at + 3])
    local old = hold(id)
    if amount < 0 then
        drop(id, old)
    else
        put(id, old, {unpack(ARGV, at + 4, at + 3 + count)}, amount, settled and 0 or now + HOLD)
    end
    at = at + 4 + count
end
save()
return {1}
