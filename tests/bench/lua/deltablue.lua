local REQUIRED, STRONG_DEFAULT, PREFERRED, DEFAULT, WEAKEST = 1, 4, 3, 5, 7

local Vector = {}
Vector.__index = Vector

function Vector.sized(n)
  local storage = {}
  for i = 1, n do storage[i] = false end
  return setmetatable({ storage = storage, room = n, first = 1, last = 1 }, Vector)
end

function Vector.with(element)
  local new = Vector.sized(1)
  new:append(element)
  return new
end

function Vector:at(i) return self.storage[i] end
function Vector:isEmpty() return self.first == self.last end

function Vector:append(element)
  if self.last > self.room then
    local larger, old = {}, self.storage
    for i = 1, self.room * 2 do larger[i] = false end
    for i = 1, self.room do larger[i] = old[i] end
    self.storage = larger
    self.room = self.room * 2
  end
  self.storage[self.last] = element
  self.last = self.last + 1
end

function Vector:each(block)
  for i = self.first, self.last - 1 do block(self.storage[i]) end
end

function Vector:removeFirst()
  local first = self.storage[self.first]
  self.first = self.first + 1
  return first
end

function Vector:remove(element)
  local kept, last = {}, 1
  for i = 1, self.room do kept[i] = false end
  self:each(function(each)
    if each ~= element then
      kept[last] = each
      last = last + 1
    end
  end)
  self.storage, self.first, self.last = kept, 1, last
end

function Vector:sort(precedes)
  local storage = self.storage
  for i = self.first + 1, self.last - 1 do
    local each, j = storage[i], i - 1
    while j >= self.first and precedes(each, storage[j]) do
      storage[j + 1] = storage[j]
      j = j - 1
    end
    storage[j + 1] = each
  end
end

local Strength = {}
Strength.__index = Strength
local strengths

function Strength.of(symbolic)
  if not strengths then
    strengths = {}
    for i, value in ipairs({ -10000, -800, -600, -400, -200, 0, 500, 10000 }) do
      strengths[i] = setmetatable({ value = value }, Strength)
    end
  end
  return strengths[symbolic + 1]
end

function Strength:sameAs(other) return self.value == other.value end
function Strength:isStrongerThan(other) return self.value < other.value end
function Strength:isWeakerThan(other) return self.value > other.value end

function Strength:weakest(other)
  if other:isWeakerThan(self) then return other end
  return self
end

local Variable = {}
Variable.__index = Variable

function Variable.with(value)
  return setmetatable({
    value = value, constraints = Vector.sized(2), determinedBy = nil, mark = 0, walkStrength = Strength.of(WEAKEST),
    stays = true,
  }, Variable)
end

local Constraint = {}
Constraint.__index = Constraint

function Constraint:isInput() return false end

function Constraint:addTo(planner)
  self:addToGraph()
  planner:incrementalAdd(self)
  return self
end

function Constraint:destroy(planner)
  if self:isSatisfied() then planner:incrementalRemove(self) end
  self:removeFromGraph()
end

function Constraint:inputsKnown(mark)
  return not self:inputsHaveOne(function(v)
    return not (v.mark == mark or v.stays or v.determinedBy == nil)
  end)
end

function Constraint:satisfy(mark, planner)
  local overridden
  self:chooseMethod(mark)
  if self:isSatisfied() then
    self:inputsDo(function(input) input.mark = mark end)
    local out = self:output()
    overridden = out.determinedBy
    if overridden then overridden:markUnsatisfied() end
    out.determinedBy = self
    if not planner:addPropagate(self, mark) then error("a cycle of constraints") end
    out.mark = mark
  elseif self.force:sameAs(Strength.of(REQUIRED)) then
    error("a required constraint cannot be satisfied")
  end
  return overridden
end

local Unary = setmetatable({}, { __index = Constraint })
Unary.__index = Unary

function Unary.on(class, variable, symbolic, planner)
  local new = setmetatable({ force = Strength.of(symbolic), target = variable, satisfied = false }, class)
  return new:addTo(planner)
end

function Unary:isSatisfied() return self.satisfied end
function Unary:output() return self.target end

function Unary:addToGraph()
  self.target.constraints:append(self)
  self.satisfied = false
end

function Unary:removeFromGraph()
  self.target.constraints:remove(self)
  if self.target.determinedBy == self then self.target.determinedBy = nil end
  self.satisfied = false
end

function Unary:chooseMethod(mark)
  self.satisfied = self.target.mark ~= mark and self.force:isStrongerThan(self.target.walkStrength)
end

function Unary:inputsDo() end
function Unary:inputsHaveOne() return false end
function Unary:markUnsatisfied() self.satisfied = false end
function Unary:execute() end

function Unary:recalculate()
  self.target.walkStrength = self.force
  self.target.stays = not self:isInput()
  if self.target.stays then self:execute() end
end

local Stay = setmetatable({}, { __index = Unary })
Stay.__index = Stay
local Edit = setmetatable({}, { __index = Unary })
Edit.__index = Edit
function Edit:isInput() return true end

local Binary = setmetatable({}, { __index = Constraint })
Binary.__index = Binary

function Binary:isSatisfied() return self.direction ~= nil end
function Binary:output() return self.direction == "forward" and self.v2 or self.v1 end

function Binary:addToGraph()
  self.v1.constraints:append(self)
  self.v2.constraints:append(self)
  self.direction = nil
end

function Binary:forget(v)
  v.constraints:remove(self)
  if v.determinedBy == self then v.determinedBy = nil end
end

function Binary:removeFromGraph()
  self:forget(self.v1)
  self:forget(self.v2)
  self.direction = nil
end

function Binary:markUnsatisfied() self.direction = nil end

function Binary:chooseMethod(mark)
  local v1, v2, force = self.v1, self.v2, self.force
  if v1.mark == mark then
    self.direction = (v2.mark ~= mark and force:isStrongerThan(v2.walkStrength)) and "forward" or nil
  elseif v2.mark == mark then
    self.direction = (v1.mark ~= mark and force:isStrongerThan(v1.walkStrength)) and "backward" or nil
  elseif v1.walkStrength:isWeakerThan(v2.walkStrength) then
    self.direction = force:isStrongerThan(v1.walkStrength) and "backward" or nil
  else
    self.direction = force:isStrongerThan(v2.walkStrength) and "forward" or nil
  end
end

function Binary:inputsDo(block) block(self.direction == "forward" and self.v1 or self.v2) end
function Binary:inputsHaveOne(block) return block(self.direction == "forward" and self.v1 or self.v2) end

function Binary:recalculate()
  local input, out
  if self.direction == "forward" then input, out = self.v1, self.v2 else input, out = self.v2, self.v1 end
  out.walkStrength = self.force:weakest(input.walkStrength)
  out.stays = input.stays
  if out.stays then self:execute() end
end

local Equality = setmetatable({}, { __index = Binary })
Equality.__index = Equality

function Equality.from(a, b, symbolic, planner)
  return setmetatable({ force = Strength.of(symbolic), v1 = a, v2 = b, direction = nil }, Equality):addTo(planner)
end

function Equality:execute()
  if self.direction == "forward" then self.v2.value = self.v1.value else self.v1.value = self.v2.value end
end

local Scaling = setmetatable({}, { __index = Binary })
Scaling.__index = Scaling

function Scaling.from(a, scale, offset, b, symbolic, planner)
  return setmetatable({
    force = Strength.of(symbolic), v1 = a, v2 = b, direction = nil, scale = scale, offset = offset,
  }, Scaling):addTo(planner)
end

function Scaling:addToGraph()
  Binary.addToGraph(self)
  self.scale.constraints:append(self)
  self.offset.constraints:append(self)
end

function Scaling:removeFromGraph()
  Binary.removeFromGraph(self)
  self:forget(self.scale)
  self:forget(self.offset)
end

function Scaling:inputsDo(block)
  Binary.inputsDo(self, block)
  block(self.scale)
  block(self.offset)
end

function Scaling:execute()
  if self.direction == "forward" then
    self.v2.value = self.v1.value * self.scale.value + self.offset.value
  else
    self.v1.value = (self.v2.value - self.offset.value) // self.scale.value
  end
end

function Scaling:recalculate()
  local input, out
  if self.direction == "forward" then input, out = self.v1, self.v2 else input, out = self.v2, self.v1 end
  out.walkStrength = self.force:weakest(input.walkStrength)
  out.stays = input.stays and self.scale.stays and self.offset.stays
  if out.stays then self:execute() end
end

local Planner = {}
Planner.__index = Planner

function Planner.new() return setmetatable({ currentMark = 1 }, Planner) end

function Planner:newMark()
  self.currentMark = self.currentMark + 1
  return self.currentMark
end

function Planner:incrementalAdd(c)
  local mark = self:newMark()
  local overridden = c:satisfy(mark, self)
  while overridden do overridden = overridden:satisfy(mark, self) end
end

function Planner:incrementalRemove(c)
  local out = c:output()
  c:markUnsatisfied()
  c:removeFromGraph()
  self:removePropagateFrom(out):each(function(each) self:incrementalAdd(each) end)
end

function Planner:extractPlan(constraints)
  local sources = Vector.sized(50)
  constraints:each(function(c)
    if c:isInput() and c:isSatisfied() then sources:append(c) end
  end)
  return self:makePlan(sources)
end

function Planner:makePlan(todo)
  local mark, plan = self:newMark(), Vector.sized(15)
  while not todo:isEmpty() do
    local c = todo:removeFirst()
    if c:output().mark ~= mark and c:inputsKnown(mark) then
      plan:append(c)
      c:output().mark = mark
      self:addConsuming(c:output(), todo)
    end
  end
  return plan
end

function Planner:addConsuming(v, todo)
  local determining = v.determinedBy
  v.constraints:each(function(c)
    if not (c == determining or not c:isSatisfied()) then todo:append(c) end
  end)
end

function Planner:addPropagate(c, mark)
  local todo = Vector.with(c)
  while not todo:isEmpty() do
    local d = todo:removeFirst()
    if d:output().mark == mark then
      self:incrementalRemove(c)
      return false
    end
    d:recalculate()
    self:addConsuming(d:output(), todo)
  end
  return true
end

function Planner:change(v, value)
  local edit = Unary.on(Edit, v, PREFERRED, self)
  local plan = self:extractPlan(Vector.with(edit))
  for _ = 1, 10 do
    v.value = value
    plan:each(function(c) c:execute() end)
  end
  edit:destroy(self)
end

function Planner:removePropagateFrom(out)
  local unsatisfied = Vector.sized(50)
  out.determinedBy, out.walkStrength, out.stays = nil, Strength.of(WEAKEST), true
  local todo = Vector.with(out)
  while not todo:isEmpty() do
    local v = todo:removeFirst()
    v.constraints:each(function(c)
      if not c:isSatisfied() then unsatisfied:append(c) end
    end)
    local determining = v.determinedBy
    v.constraints:each(function(c)
      if not (c == determining or not c:isSatisfied()) then
        c:recalculate()
        todo:append(c:output())
      end
    end)
  end
  unsatisfied:sort(function(a, b) return a.force:isStrongerThan(b.force) end)
  return unsatisfied
end

local function chainTest(n)
  local planner, vars = Planner.new(), {}
  for i = 1, n + 1 do vars[i] = Variable.with(0) end
  for i = 1, n do Equality.from(vars[i], vars[i + 1], REQUIRED, planner) end
  Unary.on(Stay, vars[n + 1], STRONG_DEFAULT, planner)
  local edit = Unary.on(Edit, vars[1], PREFERRED, planner)
  local plan = planner:extractPlan(Vector.with(edit))
  for i = 1, 100 do
    vars[1].value = i
    plan:each(function(c) c:execute() end)
    assert(vars[n + 1].value == i)
  end
  edit:destroy(planner)
end

local function projectionTest(n)
  local planner, dests = Planner.new(), Vector.sized(50)
  local scale, offset = Variable.with(10), Variable.with(1000)
  local source, dest
  for i = 1, n do
    source, dest = Variable.with(i), Variable.with(i)
    dests:append(dest)
    Unary.on(Stay, source, DEFAULT, planner)
    Scaling.from(source, scale, offset, dest, REQUIRED, planner)
  end
  planner:change(source, 17)
  assert(dest.value == 1170)
  planner:change(dest, 1050)
  assert(source.value == 5)
  planner:change(scale, 5)
  for i = 1, n - 1 do assert(dests:at(i).value == i * 5 + 1000) end
  planner:change(offset, 2000)
  for i = 1, n - 1 do assert(dests:at(i).value == i * 5 + 2000) end
end

return function(n)
  chainTest(n)
  projectionTest(n)
  return true
end
