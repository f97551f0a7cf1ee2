local Random = require("random")
local Storage = {}
Storage.__index = Storage

local function array(n)
  local t = {}
  for i = 1, n do t[i] = false end
  return t
end

function Storage:benchmark()
  local random = Random.new()
  self.count = 0
  self:build(7, random)
  return self.count
end

function Storage:build(depth, random)
  self.count = self.count + 1
  if depth == 1 then return array(random:next() % 10 + 1) end
  local tree = array(4)
  for i = 1, 4 do tree[i] = self:build(depth - 1, random) end
  return tree
end

return function(n)
  local result
  for _ = 1, n do
    result = setmetatable({ count = 0 }, Storage):benchmark()
    assert(result == 5461)
  end
  return result
end
