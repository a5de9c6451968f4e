-- KEYS: funds. ARGV: epoch, number of requests, their ids; name, seq and amount of each fund as the ledger has it since.
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local last = 2 + tonumber(ARGV[2])
for at = 3, last do
    drop(ARGV[at], hold(ARGV[at]))
end
for at = last + 1, #ARGV, 3 do
    local one, seq = fund(ARGV[at]), tonumber(ARGV[at + 1])
    if seq > one.seq then
        one.seq, one.amount = seq, tonumber(ARGV[at + 2])
    end
end
save()
return {1}
