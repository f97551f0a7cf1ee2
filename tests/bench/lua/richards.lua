local IDLER, WORKER, HANDLER_A, HANDLER_B, DEVICE_A, DEVICE_B = 1, 2, 3, 4, 5, 6
local DEVICE_PACKET, WORK_PACKET = 0, 1
local DATA_SIZE = 4

local Packet = {}
Packet.__index = Packet

function Packet.new(link, identity, kind)
  return setmetatable({ link = link, identity = identity, kind = kind, datum = 0, data = { 0, 0, 0, 0 } }, Packet)
end

local function append(packet, head)
  packet.link = nil
  if not head then return packet end
  local mouse = head
  while mouse.link do mouse = mouse.link end
  mouse.link = packet
  return head
end

local HandlerData = {}
HandlerData.__index = HandlerData

function HandlerData.new() return setmetatable({ workIn = nil, deviceIn = nil }, HandlerData) end
function HandlerData:workInAdd(packet) self.workIn = append(packet, self.workIn) end
function HandlerData:deviceInAdd(packet) self.deviceIn = append(packet, self.deviceIn) end

local State = {}
State.__index = State

function State.new()
  return setmetatable({ packetPending = false, taskWaiting = false, taskHolding = false }, State)
end

local function stateMethods(class)
  function class:beRunning()
    self.packetPending, self.taskWaiting, self.taskHolding = false, false, false
    return self
  end
  function class:beWaiting()
    self.packetPending, self.taskHolding, self.taskWaiting = false, false, true
    return self
  end
  function class:beWaitingWithPacket()
    self.taskHolding, self.taskWaiting, self.packetPending = false, true, true
    return self
  end
  function class:bePacketPending()
    self.packetPending, self.taskWaiting, self.taskHolding = true, false, false
    return self
  end
  function class:isHoldingOrWaiting()
    return self.taskHolding or (not self.packetPending and self.taskWaiting)
  end
  function class:isWaitingWithPacket()
    return self.packetPending and (self.taskWaiting and not self.taskHolding)
  end
end

local Task = {}
Task.__index = Task
stateMethods(State)
stateMethods(Task)

function Task.new(link, identity, priority, input, state, handle, action)
  return setmetatable({
    packetPending = state.packetPending, taskWaiting = state.taskWaiting, taskHolding = state.taskHolding,
    link = link, identity = identity, priority = priority, input = input, handle = handle, action = action,
  }, Task)
end

function Task:addInput(packet, oldTask)
  if not self.input then
    self.input = packet
    self.packetPending = true
    if self.priority > oldTask.priority then return self end
  else
    self.input = append(packet, self.input)
  end
  return oldTask
end

function Task:runTask()
  local message
  if self:isWaitingWithPacket() then
    message = self.input
    self.input = message.link
    if not self.input then self:beRunning() else self:bePacketPending() end
  end
  return self.action(message, self.handle)
end

local Scheduler = {}
Scheduler.__index = Scheduler

function Scheduler.new()
  return setmetatable({
    queuePacketCount = 0, holdCount = 0, taskTable = {}, taskList = nil, currentTask = nil, currentIdentity = 0,
  }, Scheduler)
end

function Scheduler:create(identity, priority, input, state, handle, action)
  local task = Task.new(self.taskList, identity, priority, input, state, handle, action)
  self.taskList = task
  self.taskTable[identity] = task
end

function Scheduler:createIdler(state)
  self:create(IDLER, 0, nil, state, { control = 1, count = 10000 }, function(_, data)
    data.count = data.count - 1
    if data.count == 0 then return self:holdSelf() end
    if data.control & 1 == 0 then
      data.control = data.control // 2
      return self:release(DEVICE_A)
    end
    data.control = data.control // 2 ~ 53256
    return self:release(DEVICE_B)
  end)
end

function Scheduler:createWorker(work, state)
  self:create(WORKER, 1000, work, state, { destination = HANDLER_A, count = 0 }, function(packet, data)
    if not packet then return self:markWaiting() end
    data.destination = data.destination == HANDLER_A and HANDLER_B or HANDLER_A
    packet.identity = data.destination
    packet.datum = 0
    for i = 1, DATA_SIZE do
      data.count = data.count + 1
      if data.count > 26 then data.count = 1 end
      packet.data[i] = 65 + data.count - 1
    end
    return self:queuePacket(packet)
  end)
end

function Scheduler:createHandler(identity, priority, work, state)
  self:create(identity, priority, work, state, HandlerData.new(), function(packet, data)
    if packet then
      if packet.kind == WORK_PACKET then data:workInAdd(packet) else data:deviceInAdd(packet) end
    end
    local workPacket = data.workIn
    if not workPacket then return self:markWaiting() end
    local count = workPacket.datum
    if count >= DATA_SIZE then
      data.workIn = workPacket.link
      return self:queuePacket(workPacket)
    end
    local devicePacket = data.deviceIn
    if not devicePacket then return self:markWaiting() end
    data.deviceIn = devicePacket.link
    devicePacket.datum = workPacket.data[count + 1]
    workPacket.datum = count + 1
    return self:queuePacket(devicePacket)
  end)
end

function Scheduler:createDevice(identity, priority, state)
  self:create(identity, priority, nil, state, { pending = nil }, function(packet, data)
    if packet then
      data.pending = packet
      return self:holdSelf()
    end
    local pending = data.pending
    if not pending then return self:markWaiting() end
    data.pending = nil
    return self:queuePacket(pending)
  end)
end

function Scheduler:holdSelf()
  self.holdCount = self.holdCount + 1
  self.currentTask.taskHolding = true
  return self.currentTask.link
end

function Scheduler:markWaiting()
  self.currentTask.taskWaiting = true
  return self.currentTask
end

function Scheduler:findTask(identity)
  local found = self.taskTable[identity]
  if not found then error("there is no such task") end
  return found
end

function Scheduler:queuePacket(packet)
  local receiver = self:findTask(packet.identity)
  self.queuePacketCount = self.queuePacketCount + 1
  packet.link = nil
  packet.identity = self.currentIdentity
  return receiver:addInput(packet, self.currentTask)
end

function Scheduler:release(identity)
  local receiver = self:findTask(identity)
  receiver.taskHolding = false
  if receiver.priority > self.currentTask.priority then return receiver end
  return self.currentTask
end

function Scheduler:schedule()
  self.currentTask = self.taskList
  while self.currentTask do
    if self.currentTask:isHoldingOrWaiting() then
      self.currentTask = self.currentTask.link
    else
      self.currentIdentity = self.currentTask.identity
      self.currentTask = self.currentTask:runTask()
    end
  end
end

local function packetsFor(device)
  local queue
  for _ = 1, 3 do queue = Packet.new(queue, device, DEVICE_PACKET) end
  return queue
end

function Scheduler:start()
  self:createIdler(State.new():beRunning())
  local queue = Packet.new(nil, WORKER, WORK_PACKET)
  queue = Packet.new(queue, WORKER, WORK_PACKET)
  self:createWorker(queue, State.new():beWaitingWithPacket())
  self:createHandler(HANDLER_A, 2000, packetsFor(DEVICE_A), State.new():beWaitingWithPacket())
  self:createHandler(HANDLER_B, 3000, packetsFor(DEVICE_B), State.new():beWaitingWithPacket())
  self:createDevice(DEVICE_A, 4000, State.new():beWaiting())
  self:createDevice(DEVICE_B, 5000, State.new():beWaiting())
  self:schedule()
  return self.queuePacketCount == 23246 and self.holdCount == 9297
end

return function(n)
  for _ = 1, n do assert(Scheduler.new():start()) end
  return true
end
