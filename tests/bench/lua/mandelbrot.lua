local wanted = { [1] = 128, [500] = 191, [750] = 50 }

local function mandelbrot(size)
  local sum, byteAcc, bitNum, y = 0, 0, 0, 0
  while y < size do
    local ci = 2.0 * y / size - 1.0
    local x = 0
    while x < size do
      local zrzr, zi, zizi = 0.0, 0.0, 0.0
      local cr = 2.0 * x / size - 1.5
      local z, notDone, escape = 0, true, 0
      while notDone and z < 50 do
        local zr = zrzr - zizi + cr
        zi = 2.0 * zr * zi + ci
        zrzr = zr * zr
        zizi = zi * zi
        if zrzr + zizi > 4.0 then
          notDone = false
          escape = 1
        end
        z = z + 1
      end
      byteAcc = (byteAcc << 1) + escape
      bitNum = bitNum + 1
      if bitNum == 8 then
        sum = sum ~ byteAcc
        byteAcc, bitNum = 0, 0
      elseif x == size - 1 then
        byteAcc = byteAcc << (8 - bitNum)
        sum = sum ~ byteAcc
        byteAcc, bitNum = 0, 0
      end
      x = x + 1
    end
    y = y + 1
  end
  return sum
end

return function(n)
  local result = mandelbrot(n)
  assert(result == (wanted[n] or result))
  return result
end
