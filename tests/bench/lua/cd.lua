local MIN_X, MIN_Y, MAX_X, MAX_Y, MIN_Z, MAX_Z = 0.0, 0.0, 1000.0, 1000.0, 0.0, 10.0
local RADIUS, VOXEL = 1.0, 2.0
local sqrt = math.sqrt

local Vector = {}
Vector.__index = Vector

function Vector.sized(n)
  local storage = {}
  for i = 1, n do storage[i] = false end
  return setmetatable({ storage = storage, room = n, size = 0 }, Vector)
end

function Vector:at(i) return self.storage[i] end

function Vector:append(element)
  if self.size == self.room then
    local larger, old = {}, self.storage
    self.room = self.size * 2
    for i = 1, self.room do larger[i] = false end
    for i = 1, self.size do larger[i] = old[i] end
    self.storage = larger
  end
  self.size = self.size + 1
  self.storage[self.size] = element
end

function Vector:each(block)
  for i = 1, self.size do block(self.storage[i]) end
end

local Vector2 = {}
Vector2.__index = Vector2
function Vector2.new(x, y) return setmetatable({ x = x, y = y }, Vector2) end
function Vector2:plus(other) return Vector2.new(self.x + other.x, self.y + other.y) end
function Vector2:minus(other) return Vector2.new(self.x - other.x, self.y - other.y) end

local function compare(a, b)
  if a == b then return 0 end
  if a < b then return -1 end
  return 1
end

function Vector2:compareTo(other)
  local order = compare(self.x, other.x)
  if order ~= 0 then return order end
  return compare(self.y, other.y)
end

local Vector3 = {}
Vector3.__index = Vector3
function Vector3.new(x, y, z) return setmetatable({ x = x, y = y, z = z }, Vector3) end
function Vector3:plus(other) return Vector3.new(self.x + other.x, self.y + other.y, self.z + other.z) end
function Vector3:minus(other) return Vector3.new(self.x - other.x, self.y - other.y, self.z - other.z) end
function Vector3:times(n) return Vector3.new(self.x * n, self.y * n, self.z * n) end
function Vector3:dot(other) return self.x * other.x + self.y * other.y + self.z * other.z end
function Vector3:squaredMagnitude() return self:dot(self) end
function Vector3:magnitude() return sqrt(self:squaredMagnitude()) end

local CallSign = {}
CallSign.__index = CallSign
function CallSign.new(number) return setmetatable({ number = number }, CallSign) end

function CallSign:compareTo(other)
  if self.number == other.number then return 0 end
  if self.number < other.number then return -1 end
  return 1
end

local Motion = {}
Motion.__index = Motion
function Motion.new(sign, from, to) return setmetatable({ sign = sign, from = from, to = to }, Motion) end
function Motion:delta() return self.to:minus(self.from) end

function Motion:intersection(other)
  local vec1, vec2 = self:delta(), other:delta()
  local a = vec2:minus(vec1):squaredMagnitude()
  if a ~= 0.0 then
    local b = 2.0 * self.from:minus(other.from):dot(vec1:minus(vec2))
    local c = 0.0 - RADIUS * RADIUS + other.from:minus(self.from):squaredMagnitude()
    local discriminant = b * b - 4.0 * a * c
    if discriminant < 0.0 then return nil end
    local v1 = (0.0 - b - sqrt(discriminant)) / (2.0 * a)
    local v2 = (0.0 - b + sqrt(discriminant)) / (2.0 * a)
    if v1 <= v2 and ((v1 <= 1.0 and 1.0 <= v2) or (v1 <= 0.0 and 0.0 <= v2) or (0.0 <= v1 and v2 <= 1.0)) then
      local v = v1 <= 0.0 and 0.0 or v1
      local result = self.from:plus(vec1:times(v)):plus(other.from:plus(vec2:times(v))):times(0.5)
      if result.x >= MIN_X and result.x <= MAX_X and result.y >= MIN_Y and result.y <= MAX_Y
        and result.z >= MIN_Z and result.z <= MAX_Z then
        return result
      end
    end
    return nil
  end
  if other.from:minus(self.from):magnitude() <= RADIUS then return self.from:plus(other.from):times(0.5) end
  return nil
end

local Node = {}
Node.__index = Node

function Node.new(key, value)
  return setmetatable({ key = key, value = value, left = nil, right = nil, up = nil, isRed = true }, Node)
end

function Node:minimum()
  local x = self
  while x.left do x = x.left end
  return x
end

function Node:successor()
  if self.right then return self.right:minimum() end
  local x, y = self, self.up
  while y and x == y.right do x, y = y, y.up end
  return y
end

local Tree = {}
Tree.__index = Tree
function Tree.new() return setmetatable({ root = nil }, Tree) end

function Tree:put(key, value)
  local x, y, order = self.root, nil, nil
  while x do
    y = x
    order = key:compareTo(x.key)
    if order == 0 then
      local old = x.value
      x.value = value
      return old
    end
    if order < 0 then x = x.left else x = x.right end
  end
  local z = Node.new(key, value)
  z.up = y
  if not y then
    self.root = z
  elseif order < 0 then
    y.left = z
  else
    y.right = z
  end
  self:balance(z)
  return nil
end

function Tree:balance(added)
  local x = added
  while x ~= self.root and x.up.isRed do
    local grand = x.up.up
    if x.up == grand.left then
      local uncle = grand.right
      if uncle and uncle.isRed then
        x.up.isRed, uncle.isRed, grand.isRed = false, false, true
        x = grand
      else
        if x == x.up.right then
          x = x.up
          self:rotateLeft(x)
        end
        x.up.isRed, x.up.up.isRed = false, true
        self:rotateRight(x.up.up)
      end
    else
      local uncle = grand.left
      if uncle and uncle.isRed then
        x.up.isRed, uncle.isRed, grand.isRed = false, false, true
        x = grand
      else
        if x == x.up.left then
          x = x.up
          self:rotateRight(x)
        end
        x.up.isRed, x.up.up.isRed = false, true
        self:rotateLeft(x.up.up)
      end
    end
  end
  self.root.isRed = false
end

function Tree:find(key)
  local current = self.root
  while current do
    local order = key:compareTo(current.key)
    if order == 0 then return current end
    if order < 0 then current = current.left else current = current.right end
  end
  return nil
end

function Tree:at(key)
  local found = self:find(key)
  if not found then return nil end
  return found.value
end

function Tree:each(block)
  if not self.root then return end
  local current = self.root:minimum()
  while current do
    block(current.key, current.value)
    current = current:successor()
  end
end

function Tree:replace(x, y)
  if not x.up then
    self.root = y
  elseif x == x.up.left then
    x.up.left = y
  else
    x.up.right = y
  end
end

function Tree:rotateLeft(x)
  local y = x.right
  x.right = y.left
  if y.left then y.left.up = x end
  y.up = x.up
  self:replace(x, y)
  y.left = x
  x.up = y
  return y
end

function Tree:rotateRight(y)
  local x = y.left
  y.left = x.right
  if x.right then x.right.up = y end
  x.up = y.up
  self:replace(y, x)
  x.right = y
  y.up = x
  return x
end

function Tree:remove(key)
  local z = self:find(key)
  if not z then return nil end
  local y = z
  if z.left and z.right then y = z:successor() end
  local x = y.left or y.right
  local above = y.up
  if x then x.up = above end
  self:replace(y, x)
  if not y.isRed then self:repair(x, above) end
  if y ~= z then
    y.up, y.isRed, y.left, y.right = z.up, z.isRed, z.left, z.right
    if z.left then z.left.up = y end
    if z.right then z.right.up = y end
    self:replace(z, y)
  end
  return z.value
end

local function isBlack(node) return not node or not node.isRed end

function Tree:repair(start, startAbove)
  local x, above = start, startAbove
  while x ~= self.root and isBlack(x) do
    if x == above.left then
      local w = above.right
      if w.isRed then
        w.isRed, above.isRed = false, true
        self:rotateLeft(above)
        w = above.right
      end
      if isBlack(w.left) and isBlack(w.right) then
        w.isRed = true
        x = above
        above = x.up
      else
        if isBlack(w.right) then
          w.left.isRed, w.isRed = false, true
          self:rotateRight(w)
          w = above.right
        end
        w.isRed, above.isRed = above.isRed, false
        if w.right then w.right.isRed = false end
        self:rotateLeft(above)
        x = self.root
        above = x.up
      end
    else
      local w = above.left
      if w.isRed then
        w.isRed, above.isRed = false, true
        self:rotateRight(above)
        w = above.left
      end
      if isBlack(w.right) and isBlack(w.left) then
        w.isRed = true
        x = above
        above = x.up
      else
        if isBlack(w.left) then
          w.right.isRed, w.isRed = false, true
          self:rotateLeft(w)
          w = above.left
        end
        w.isRed, above.isRed = above.isRed, false
        if w.left then w.left.isRed = false end
        self:rotateRight(above)
        x = self.root
        above = x.up
      end
    end
  end
  if x then x.isRed = false end
end

local function touches(low, high)
  return (low <= 1.0 and 1.0 <= high) or (low <= 0.0 and 0.0 <= high) or (0.0 <= low and high <= 1.0)
end

local function isIn(motion, voxel)
  if voxel.x > MAX_X or voxel.x < MIN_X or voxel.y > MAX_Y or voxel.y < MIN_Y then return false end
  local r = RADIUS / 2.0
  local vx, x0, vy, y0 = voxel.x, motion.from.x, voxel.y, motion.from.y
  local xv, yv = motion.to.x - x0, motion.to.y - y0
  local lowX, highX, lowY, highY
  if xv == 0.0 then
    if not (vx <= x0 + r and x0 - r <= vx + VOXEL) then return false end
  else
    lowX, highX = (vx - r - x0) / xv, (vx + VOXEL + r - x0) / xv
    if xv < 0.0 then lowX, highX = highX, lowX end
    if not touches(lowX, highX) then return false end
  end
  if yv == 0.0 then
    if not (vy <= y0 + r and y0 - r <= vy + VOXEL) then return false end
  else
    lowY, highY = (vy - r - y0) / yv, (vy + VOXEL + r - y0) / yv
    if yv < 0.0 then lowY, highY = highY, lowY end
    if not touches(lowY, highY) then return false end
  end
  if xv == 0.0 or yv == 0.0 then return true end
  return (lowY <= highX and highX <= highY) or (lowY <= lowX and lowX <= highY) or (lowX <= lowY and highY <= highX)
end

local horizontal, vertical = Vector2.new(VOXEL, 0.0), Vector2.new(0.0, VOXEL)

local Detector = {}
Detector.__index = Detector

function Detector:draw(motion, voxels, seen, voxel)
  if not isIn(motion, voxel) then return end
  if seen:put(voxel, true) then return end
  local group = voxels:at(voxel)
  if not group then
    group = Vector.sized(10)
    voxels:put(voxel, group)
  end
  group:append(motion)
  self:draw(motion, voxels, seen, voxel:minus(horizontal))
  self:draw(motion, voxels, seen, voxel:plus(horizontal))
  self:draw(motion, voxels, seen, voxel:minus(vertical))
  self:draw(motion, voxels, seen, voxel:plus(vertical))
  self:draw(motion, voxels, seen, voxel:minus(horizontal):minus(vertical))
  self:draw(motion, voxels, seen, voxel:minus(horizontal):plus(vertical))
  self:draw(motion, voxels, seen, voxel:plus(horizontal):minus(vertical))
  self:draw(motion, voxels, seen, voxel:plus(horizontal):plus(vertical))
end

local function truncated(x) return x // 1 end

local function voxelOf(position)
  local vx, vy = VOXEL * truncated(position.x / VOXEL), VOXEL * truncated(position.y / VOXEL)
  if position.x < 0.0 then vx = vx - VOXEL end
  if position.y < 0.0 then vy = vy - VOXEL end
  return Vector2.new(vx, vy)
end

function Detector:reduce(motions)
  local voxels = Tree.new()
  motions:each(function(each) self:draw(each, voxels, Tree.new(), voxelOf(each.from)) end)
  local groups = Vector.sized(50)
  voxels:each(function(_, group)
    if group.size > 1 then groups:append(group) end
  end)
  return groups
end

function Detector:handle(frame)
  local motions, seen, state = Vector.sized(frame.size), Tree.new(), self.state
  frame:each(function(each)
    local old = state:put(each.sign, each.position)
    seen:put(each.sign, true)
    motions:append(Motion.new(each.sign, old or each.position, each.position))
  end)
  local gone = Vector.sized(10)
  state:each(function(sign)
    if not seen:at(sign) then gone:append(sign) end
  end)
  gone:each(function(sign) state:remove(sign) end)
  local collisions = Vector.sized(50)
  self:reduce(motions):each(function(group)
    for i = 1, group.size do
      local a = group:at(i)
      for j = i + 1, group.size do
        local b = group:at(j)
        local position = a:intersection(b)
        if position then collisions:append({ first = a.sign, second = b.sign, position = position }) end
      end
    end
  end)
  return collisions
end

local function frameAt(aircraft, time)
  local frame = Vector.sized(aircraft)
  for i = 0, aircraft - 1, 2 do
    frame:append({ sign = CallSign.new(i), position = Vector3.new(time, math.cos(time) * 2 + i * 3, 10.0) })
    frame:append({ sign = CallSign.new(i + 1), position = Vector3.new(time, math.sin(time) * 2 + i * 3, 10.0) })
  end
  return frame
end

local wanted = { [1000] = 14484, [500] = 14484, [250] = 10830, [200] = 8655, [100] = 4305, [10] = 390, [2] = 42 }

return function(n)
  local detector, collisions = setmetatable({ state = Tree.new() }, Detector), 0
  for i = 0, 199 do collisions = collisions + detector:handle(frameAt(n, i / 10.0)).size end
  assert(collisions == (wanted[n] or collisions))
  return collisions
end
