-- KEYS: funds, a key per place, a key per limit of tokens. ARGV: epoch (empty: no credit is held), id, charge (0: none),
-- the tokens it was (-1: as estimated), number of places; bucket and estimate per limit of tokens.
-- Tokens that were too many are given back where they were counted; those that come to it count from now on.
local id, charge, truth, places = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

for place = 2, places + 1 do
    redis.call('ZREM', KEYS[place], id)
end

for place = places + 2, #KEYS do
    local at = 6 + 2 * (place - places - 2)
    local bucket, more = ARGV[at], truth - tonumber(ARGV[at + 1])
    if truth >= 0 and more ~= 0 then
        local window = open(KEYS[place], 'tpm')
        local counted = tonumber(redis.call('HGET', window.key, bucket))
        if more > 0 then
            add(window, more)
        elseif counted then -- else it has left the window
            more = math.max(more, -counted)
            redis.call('HINCRBY', window.key, bucket, text(more))
            redis.call('HSET', window.key, 'n', text(window.count + more))
        end
    end
end

if ARGV[1] == '' then
    return {1}
end
local gone = lost(redis.call('HGET', FUNDS, 'epoch'))
if gone then
    return gone
end
local own = hold(id)
if own and own.expires ~= 0 then
    if charge > 0 then
        put(id, own, own.names, charge, 0)
    else
        drop(id, own)
    end
    save()
end
return {1}
