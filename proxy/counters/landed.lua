-- KEYS: funds. ARGV: epoch, 1 if the amounts were read to be learned else 0, number of requests, their ids; name, seq and
-- amount of each fund by the ledger. What comes with landed charges makes no fund known: this process's word may be older
-- than a charge that was told elsewhere before the epoch began. It is kept in mind how new what is learned must be: an
-- unknown fund's seq is -1 - that.
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local last = 3 + tonumber(ARGV[3])
for at = 4, last do
    drop(ARGV[at], hold(ARGV[at]))
end
for at = last + 1, #ARGV, 3 do
    local one, seq = fund(ARGV[at]), tonumber(ARGV[at + 1])
    if one.seq < 0 and ARGV[2] == '0' then
        one.seq = math.min(one.seq, -1 - seq)
    elseif one.seq < 0 and seq >= -1 - one.seq or one.seq >= 0 and seq > one.seq then
        one.seq, one.amount = seq, tonumber(ARGV[at + 2])
    end
end
save()
return {1}
