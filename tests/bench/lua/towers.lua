local Towers = {}
Towers.__index = Towers

function Towers:benchmark()
  self.piles = { false, false, false, false }
  self:build(1, 13)
  self.moves = 0
  self:move(13, 1, 2)
  return self.moves
end

function Towers:push(disk, pile)
  local top = self.piles[pile]
  if top and disk.size >= top.size then error("a big disk on a small one") end
  disk.next = top
  self.piles[pile] = disk
end

function Towers:pop(pile)
  local top = self.piles[pile]
  if not top then error("a disk from an empty pile") end
  self.piles[pile] = top.next
  top.next = false
  return top
end

function Towers:moveTop(from, to)
  self:push(self:pop(from), to)
  self.moves = self.moves + 1
end

function Towers:build(pile, disks)
  local i = disks
  while i >= 0 do
    local disk = { size = 0, next = false }
    disk.size = i
    self:push(disk, pile)
    i = i - 1
  end
end

function Towers:move(disks, from, to)
  if disks == 1 then return self:moveTop(from, to) end
  local other = 6 - from - to
  self:move(disks - 1, from, other)
  self:moveTop(from, to)
  return self:move(disks - 1, other, to)
end

return function(n)
  local result
  for _ = 1, n do
    result = setmetatable({ piles = false, moves = 0 }, Towers):benchmark()
    assert(result == 8191)
  end
  return result
end
