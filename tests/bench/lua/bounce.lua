local Random = require("random")
local Ball = {}
Ball.__index = Ball

function Ball.new(random)
  local ball = { x = 0, y = 0, xVel = 0, yVel = 0 }
  ball.x = random:next() % 500
  ball.y = random:next() % 500
  ball.xVel = random:next() % 300 - 150
  ball.yVel = random:next() % 300 - 150
  return setmetatable(ball, Ball)
end

local abs = math.abs

function Ball:bounce()
  local bounced = false
  self.x = self.x + self.xVel
  self.y = self.y + self.yVel
  if self.x > 500 then self.x = 500 self.xVel = 0 - abs(self.xVel) bounced = true end
  if self.x < 0 then self.x = 0 self.xVel = abs(self.xVel) bounced = true end
  if self.y > 500 then self.y = 500 self.yVel = 0 - abs(self.yVel) bounced = true end
  if self.y < 0 then self.y = 0 self.yVel = abs(self.yVel) bounced = true end
  return bounced
end

local function benchmark()
  local random = Random.new()
  local balls = {}
  for i = 1, 100 do balls[i] = Ball.new(random) end
  local bounces = 0
  for _ = 1, 50 do
    for _, ball in ipairs(balls) do
      if ball:bounce() then bounces = bounces + 1 end
    end
  end
  return bounces
end

return function(n)
  local result
  for _ = 1, n do
    result = benchmark()
    assert(result == 1331)
  end
  return result
end
