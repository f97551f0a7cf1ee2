local sub = string.sub

local function makeText()
  local out = { '{"head":{"requestCounter":4},"operations":[' }
  for i = 1, 156 do
    if i > 1 then out[#out + 1] = "," end
    out[#out + 1] = '["create","w' .. i .. '","grid.Item",{"parent":"w99","index":' .. i .. ',"texts":["' .. i
      .. '","E' .. i .. '","Element ' .. i .. '","noble \\"gas\\"","' .. i % 18 .. '","' .. i % 7
      .. '"],"weight":-1.5e3,"cellBackgrounds":[null,null,[138,226,52,255],true,false]}]'
  end
  out[#out + 1] = "]}"
  return table.concat(out)
end

local Value = {}
Value.__index = Value
function Value:isObject() return false end
function Value:isArray() return false end

local Array = {}
Array.__index = Array

function Array.new()
  local values = {}
  for i = 1, 10 do values[i] = false end
  return setmetatable({ values = values, room = 10, count = 0 }, Array)
end

function Array:isObject() return false end
function Array:isArray() return true end
function Array:size() return self.count end
function Array:at(i) return self.values[i] end

function Array:add(value)
  if self.count == self.room then
    local larger, old = {}, self.values
    self.room = self.count * 2
    for i = 1, self.room do larger[i] = false end
    for i = 1, self.count do larger[i] = old[i] end
    self.values = larger
  end
  self.count = self.count + 1
  self.values[self.count] = value
end

local Object = {}
Object.__index = Object

function Object.new()
  local buckets = {}
  for i = 1, 32 do buckets[i] = 0 end
  return setmetatable({ names = Array.new(), values = Array.new(), table = buckets }, Object)
end

function Object:isObject() return true end
function Object:isArray() return false end
function Object:bucketOf(name) return (#name * 1402589 & 31) + 1 end

function Object:add(name, value)
  local bucket = self:bucketOf(name)
  self.table[bucket] = self.names:size() < 255 and self.names:size() + 1 or 0
  self.names:add(name)
  self.values:add(value)
end

function Object:indexOf(name)
  local index = self.table[self:bucketOf(name)]
  if index ~= 0 and self.names:at(index) == name then return index end
  for i = 1, self.names:size() do
    if self.names:at(i) == name then return i end
  end
  return 0
end

function Object:at(name)
  local index = self:indexOf(name)
  if index == 0 then return nil end
  return self.values:at(index)
end

local Parser = {}
Parser.__index = Parser

function Parser.new(input)
  return setmetatable({
    input = input, index = 0, line = 1, column = 0, current = nil, captureBuffer = "", captureStart = 0,
  }, Parser)
end

function Parser:fail(text) error("line " .. self.line .. ", column " .. self.column .. ": " .. text) end

function Parser:parse()
  self:read()
  self:skipWhiteSpace()
  local result = self:readValue()
  self:skipWhiteSpace()
  if self.current then self:fail("something after the value") end
  return result
end

function Parser:readValue()
  local c = self.current
  if c == "n" then return self:readWord("null", nil) end
  if c == "t" then return self:readWord("true", true) end
  if c == "f" then return self:readWord("false", false) end
  if c == '"' then return self:readString() end
  if c == "[" then return self:readArray() end
  if c == "{" then return self:readObject() end
  if c == "-" or self:isDigit() then return self:readNumber() end
  return self:fail("a value is expected")
end

function Parser:readArray()
  self:read()
  local array = Array.new()
  self:skipWhiteSpace()
  if self:readChar("]") then return array end
  repeat
    self:skipWhiteSpace()
    array:add(self:readValue())
    self:skipWhiteSpace()
  until not self:readChar(",")
  if not self:readChar("]") then self:fail("a comma or ] is expected") end
  return array
end

function Parser:readObject()
  self:read()
  local object = Object.new()
  self:skipWhiteSpace()
  if self:readChar("}") then return object end
  repeat
    self:skipWhiteSpace()
    if self.current ~= '"' then self:fail("a name is expected") end
    local name = self:readStringInternal()
    self:skipWhiteSpace()
    if not self:readChar(":") then self:fail("a colon is expected") end
    self:skipWhiteSpace()
    object:add(name, self:readValue())
    self:skipWhiteSpace()
  until not self:readChar(",")
  if not self:readChar("}") then self:fail("a comma or } is expected") end
  return object
end

function Parser:readWord(word, value)
  for i = 1, #word do
    if not self:readChar(sub(word, i, i)) then self:fail(word .. " is expected") end
  end
  return setmetatable({ value = value }, Value)
end

function Parser:readString() return setmetatable({ value = self:readStringInternal() }, Value) end

function Parser:readStringInternal()
  self:read()
  self:startCapture()
  while self.current ~= '"' do
    if not self.current then self:fail("a string is not closed") end
    if self.current == "\\" then
      self:pauseCapture()
      self:readEscape()
      self:startCapture()
    else
      self:read()
    end
  end
  local string = self:endCapture()
  self:read()
  return string
end

function Parser:readEscape()
  self:read()
  local c = self.current
  if c == '"' or c == "\\" or c == "/" then
    self.captureBuffer = self.captureBuffer .. c
  elseif c == "n" then
    self.captureBuffer = self.captureBuffer .. "\n"
  elseif c == "t" then
    self.captureBuffer = self.captureBuffer .. "\t"
  else
    self:fail("an escape")
  end
  self:read()
end

function Parser:readNumber()
  self:startCapture()
  self:readChar("-")
  if not self:isDigit() then self:fail("a digit is expected") end
  while self:isDigit() do self:read() end
  if self:readChar(".") then
    while self:isDigit() do self:read() end
  end
  if self:readChar("e") or self:readChar("E") then
    if not self:readChar("+") then self:readChar("-") end
    while self:isDigit() do self:read() end
  end
  return setmetatable({ digits = self:endCapture() }, Value)
end

function Parser:readChar(wanted)
  if self.current ~= wanted then return false end
  self:read()
  return true
end

function Parser:skipWhiteSpace()
  while self:isWhiteSpace() do self:read() end
end

function Parser:read()
  if self.current == "\n" then
    self.line = self.line + 1
    self.column = 0
  end
  self.index = self.index + 1
  self.column = self.column + 1
  if self.index <= #self.input then
    self.current = sub(self.input, self.index, self.index)
  else
    self.current = nil
  end
end

function Parser:startCapture() self.captureStart = self.index end

function Parser:pauseCapture()
  self.captureBuffer = self.captureBuffer .. sub(self.input, self.captureStart, self.index - 1)
  self.captureStart = 0
end

function Parser:endCapture()
  local captured = sub(self.input, self.captureStart, self.index - 1)
  if self.captureBuffer ~= "" then
    captured = self.captureBuffer .. captured
    self.captureBuffer = ""
  end
  self.captureStart = 0
  return captured
end

function Parser:isWhiteSpace() return self.current == " " or self.current == "\n" end
function Parser:isDigit() return self.current ~= nil and "0" <= self.current and self.current <= "9" end

local function verify(result)
  return result:isObject() and result:at("head"):isObject() and result:at("operations"):isArray()
    and result:at("operations"):size() == 156
end

return function(n)
  local text = makeText()
  for _ = 1, n do assert(verify(Parser.new(text):parse())) end
  return true
end
