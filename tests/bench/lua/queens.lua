local Queens = {}
Queens.__index = Queens

local function all(n, value)
  local t = {}
  for i = 1, n do t[i] = value end
  return t
end

function Queens:benchmark()
  local result = true
  for _ = 1, 10 do result = self:queens() and result end
  return result
end

function Queens:queens()
  self.rows, self.maxs = all(8, true), all(16, true)
  self.mins, self.queenRows = all(16, true), all(8, -1)
  return self:placeQueen(1)
end

function Queens:placeQueen(c)
  for r = 1, 8 do
    if self:free(r, c) then
      self.queenRows[r] = c
      self:set(r, c, false)
      if c == 8 then return true end
      if self:placeQueen(c + 1) then return true end
      self:set(r, c, true)
    end
  end
  return false
end

function Queens:free(r, c)
  return self.rows[r] and self.maxs[c + r] and self.mins[c - r + 8]
end

function Queens:set(r, c, v)
  self.rows[r] = v
  self.maxs[c + r] = v
  self.mins[c - r + 8] = v
end

return function(n)
  local result
  for _ = 1, n do
    result = setmetatable({ rows = false, maxs = false, mins = false, queenRows = false }, Queens):benchmark()
    assert(result)
  end
  return result
end
