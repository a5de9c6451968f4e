-- KEYS: none, a key per limit. ARGV: -, kind and value per limit. What is left, as `admit` says it; nothing is counted.
local lefts = {}
for place = 2, #KEYS do
    local kind = ARGV[2 * place - 2]
    if kind ~= 'concurrency' then
        local window = open(KEYS[place], kind)
        report(lefts, kind, left(window, tonumber(ARGV[2 * place - 1]), newest(window)))
    end
end
return granted(0, 0, lefts)
