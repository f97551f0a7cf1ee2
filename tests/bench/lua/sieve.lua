local Sieve = {}
Sieve.__index = Sieve

function Sieve:benchmark()
  local flags = {}
  for i = 1, 5000 do flags[i] = true end
  return self:sieve(flags, 5000)
end

function Sieve:sieve(flags, size)
  local count = 0
  for i = 2, size do
    if flags[i - 1] then
      count = count + 1
      local k = i + i
      while k <= size do
        flags[k - 1] = false
        k = k + i
      end
    end
  end
  return count
end

return function(n)
  local result
  for _ = 1, n do
    result = setmetatable({}, Sieve):benchmark()
    assert(result == 669)
  end
  return result
end
