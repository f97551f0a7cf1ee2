local Permute = {}
Permute.__index = Permute

function Permute:benchmark()
  self.count = 0
  self.v = { 0, 0, 0, 0, 0, 0 }
  self:permute(6)
  return self.count
end

function Permute:permute(n)
  self.count = self.count + 1
  if n ~= 0 then
    local n1 = n - 1
    self:permute(n1)
    local i = n1
    while i >= 0 do
      self:swap(n1, i)
      self:permute(n1)
      self:swap(n1, i)
      i = i - 1
    end
  end
end

function Permute:swap(i, j)
  local v = self.v
  local t = v[i + 1]
  v[i + 1] = v[j + 1]
  v[j + 1] = t
end

return function(n)
  local result
  for _ = 1, n do
    result = setmetatable({ count = 0, v = false }, Permute):benchmark()
    assert(result == 8660)
  end
  return result
end
