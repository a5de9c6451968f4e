-- KEYS: funds, a key per limit. ARGV: epoch, id, tokens, amount, least; kind and value per limit; name and room per fund.
-- Answers: {1, …} granted; {0, epoch found}; {2, which limit, wait, what is left…}; {3, which fund, available, held by
-- others}; {4, which funds…} that are not known; {5, amount} of what is settled. Nothing is changed before all is known
-- to pass.
local id, tokens, amount, least = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first_fund = 4 + 2 * #KEYS
local names, own = {}, nil

if first_fund <= #ARGV then
    local wanted = {'epoch', 'h:' .. id}
    for at = first_fund, #ARGV, 2 do
        names[#names + 1] = ARGV[at]
        wanted[#wanted + 1] = 'f:' .. ARGV[at]
    end
    local found = redis.call('HMGET', FUNDS, unpack(wanted))
    if found[1] ~= ARGV[1] then
        return lost(found[1])
    end
    own = read_hold(found[2])
    if own and own.expires == 0 then -- an answer that comes late must not open what is settled
        return {5, own.amount}
    end
    for place, name in ipairs(names) do
        read_fund(name, found[place + 2])
    end
end

local windows = {}
for place = 2, #KEYS do
    local key, kind, limit = KEYS[place], ARGV[2 + 2 * place], tonumber(ARGV[3 + 2 * place])
    if kind == 'concurrency' then
        if redis.call('ZCARD', key) >= limit and not redis.call('ZSCORE', key, id) then
            redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
            if redis.call('ZCARD', key) >= limit then
                return {2, place - 1, PLACE_WAIT, -1, 0, 0}
            end
        end
    else
        local window = open(key, kind)
        local pause = wait(window, limit, kind == 'tpm' and tokens or 1)
        if pause ~= 0 then
            return {2, place - 1, pause, unpack(left(window, limit, newest(window)))}
        end
        windows[place] = window
    end
end

local held, spare = 0, 0
if #names > 0 then
    local unknown, lowest, refused = {4}, math.huge, nil
    for place, name in ipairs(names) do
        local one = fund(name)
        local others = one.held
        for _, mine in ipairs(own and own.names or {}) do
            others = mine == name and others - own.amount or others
        end
        local available = one.amount + tonumber(ARGV[first_fund + 2 * place - 1]) - others
        if one.seq < 0 then
            unknown[#unknown + 1] = place
        elseif available < least and not refused then
            refused = {3, place, available, others}
        end
        lowest = math.min(lowest, available)
    end
    if unknown[2] or refused then
        return unknown[2] and unknown or refused
    end
    held = math.max(0, math.min(amount, lowest))
    spare = math.max(0, lowest - held)
    put(id, own, names, held, now + HOLD)
    save()
end

local lefts = {}
for place = 2, #KEYS do
    local key, kind, window = KEYS[place], ARGV[2 + 2 * place], windows[place]
    if window then
        add(window, kind == 'tpm' and tokens or 1)
        report(lefts, kind, left(window, tonumber(ARGV[3 + 2 * place]), window.bucket))
    else
        redis.call('ZADD', key, text(now + HOLD), id)
        redis.call('PEXPIRE', key, text(2 * HOLD / 1000))
    end
end
return granted(held, spare, lefts)
