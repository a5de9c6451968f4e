-- What the scripts share; `shared` puts it before each of them. Times are microseconds of Redis' own clock, credit is
-- nanodollars: whole numbers below 2^53, which Lua's doubles hold exactly. `text` writes them: Lua would say 1e+15.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function text(number)
    return string.format('%.0f', number)
end

-- Credit. It lies in one hash, so that all of it is lost together or nothing is:
--   epoch     "number-run": the move (`failover`) since which this is the truth, and the run of Redis that it is in
--   f:<fund>  "seq amount held used": what the ledger says (seq below 0: not known), what is held, second of the last use
--   h:<id>    "amount expires fund fund…": what a request holds in each; expires 0: settled, until it has landed
-- Every script's ARGV[1] is the epoch that its caller knows.
local FUNDS = KEYS[1]
local funds = {} -- that this script has read, by name; `save` writes them

local function number_of(epoch)
    return tonumber(string.match(epoch or '', '^%d+'))
end

local function lost(found)
    return found ~= ARGV[1] and {0, number_of(found) or -1}
end

local function read_fund(name, value)
    local seq, amount, held = string.match(value or '', '^(%S+) (%S+) (%S+)')
    local found = {seq = tonumber(seq) or -1, amount = tonumber(amount) or 0, held = tonumber(held) or 0}
    funds[name] = found
    return found
end

local function fund(name)
    return funds[name] or read_fund(name, redis.call('HGET', FUNDS, 'f:' .. name))
end

local function save()
    local second = text(math.floor(now / 1000000))
    for name, one in pairs(funds) do
        local value = text(one.seq) .. ' ' .. text(one.amount) .. ' ' .. text(one.held) .. ' ' .. second
        redis.call('HSET', FUNDS, 'f:' .. name, value)
    end
end

local function read_hold(value)
    if not value then
        return nil
    end
    local words = {}
    for word in string.gmatch(value, '%S+') do
        words[#words + 1] = word
    end
    return {amount = tonumber(words[1]), expires = tonumber(words[2]), names = {unpack(words, 3)}}
end

local function hold(id)
    return read_hold(redis.call('HGET', FUNDS, 'h:' .. id))
end

local function move(names, amount)
    for _, name in ipairs(names) do
        local one = fund(name)
        one.held = one.held + amount
    end
end

local function write_hold(id, names, amount, expires)
    redis.call('HSET', FUNDS, 'h:' .. id, text(amount) .. ' ' .. text(expires) .. ' ' .. table.concat(names, ' '))
end

local function put(id, old, names, amount, expires)
    if old then
        move(old.names, -old.amount)
    end
    move(names, amount)
    write_hold(id, names, amount, expires)
end

local function drop(id, old)
    if old then
        move(old.names, -old.amount)
        redis.call('HDEL', FUNDS, 'h:' .. id)
    end
end

-- A window is a hash: bucket (a sixtieth of the window) → what was counted in it, `n` the sum of all, `o` the oldest that
-- may be there. What is counted counts until 60 whole buckets have passed: never for less than the window.
local WIDTH = {rps = 16667, rpm = 1000000, tpm = 1000000}
local BUCKETS = 60

local function fields(first, last)
    local names = {}
    for bucket = first, last do
        names[#names + 1] = text(bucket)
    end
    return names
end

local function open(key, kind)
    local width = WIDTH[kind]
    local bucket = math.floor(now / width)
    local first = bucket - BUCKETS
    local head = redis.call('HMGET', key, 'o', 'n')
    local oldest, count = tonumber(head[1]), tonumber(head[2])
    if not oldest or oldest + BUCKETS < first or oldest > bucket + BUCKETS then -- new, all gone, or the clock was set back
        if oldest then
            redis.call('DEL', key)
        end
        oldest, count = bucket, 0
    elseif oldest < first then
        local gone = fields(oldest, first - 1)
        for _, value in ipairs(redis.call('HMGET', key, unpack(gone))) do
            count = count - (tonumber(value) or 0)
        end
        redis.call('HDEL', key, unpack(gone))
        redis.call('HSET', key, 'o', text(first), 'n', text(count))
        oldest = first
    end
    return {key = key, width = width, bucket = math.max(bucket, oldest), oldest = oldest, count = count}
end

local function free_at(window, bucket)
    return (bucket + BUCKETS + 1) * window.width - now
end

local function counts(window)
    return redis.call('HMGET', window.key, unpack(fields(window.oldest, window.oldest + BUCKETS)))
end

-- Until `cost` fits: 0 now, -1 never.
local function wait(window, limit, cost)
    local excess = window.count + cost - limit
    if excess <= 0 then
        return 0
    end
    for place, value in ipairs(counts(window)) do
        excess = excess - (tonumber(value) or 0)
        if excess <= 0 then
            return free_at(window, window.oldest + place - 1)
        end
    end
    return -1
end

local function add(window, cost)
    window.count = window.count + cost
    redis.call('HSET', window.key, 'o', text(window.oldest), 'n', text(window.count))
    if redis.call('HINCRBY', window.key, text(window.bucket), text(cost)) == cost then -- the bucket is new
        redis.call('PEXPIRE', window.key, text(math.ceil(window.width * (BUCKETS + 2) / 1000)))
    end
end

local function newest(window)
    local found = nil
    for place, value in ipairs(counts(window)) do
        found = value and window.oldest + place - 1 or found
    end
    return found
end

-- {limit, what is left of it, until all of it is there again}. `last`: the newest bucket that counts.
local function left(window, limit, last)
    return {limit, math.max(0, limit - window.count), last and free_at(window, last) or 0}
end

-- Of each kind of limit, the one with the least left.
local function report(least, kind, left)
    if not least[kind] or left[2] < least[kind][2] then
        least[kind] = left
    end
end

local function granted(held, spare, least)
    local requests, tokens = least.rpm or least.rps or {-1, 0, 0}, least.tpm or {-1, 0, 0}
    return {1, now, held, spare, requests[1], requests[2], requests[3], tokens[1], tokens[2], tokens[3]}
end
