-- Who may call, and which variant answers. Runs in Envoy for every request, after jwt_authn.
-- Its hash is the one of modelyard_serving/split.py; tests/serving/test_gateway.py feeds both the same units.
local bit = require("bit")

local function mul32(a, b) -- a 32-bit product through 16-bit halves: LuaJIT numbers are doubles
  local al, ah = bit.band(a, 0xffff), bit.rshift(a, 16)
  local bl, bh = bit.band(b, 0xffff), bit.rshift(b, 16)
  return bit.tobit(al * bl + bit.lshift(bit.band(ah * bl + al * bh, 0xffff), 16))
end

local function fnv1a(text)
  local h = bit.tobit(0x811c9dc5)
  for i = 1, #text do h = mul32(bit.bxor(h, text:byte(i)), 0x01000193) end
  return h % 4294967296
end

local function bucket(salt, unit)
  return fnv1a(string.format("%.0f", fnv1a(salt .. unit))) % 10000
end

local function refuse(handle, status, message) -- Envoy's local_reply_config makes {"error": message} of it
  handle:respond({ [":status"] = tostring(status) }, message)
end

-- A scope is verb:object; either part of a held one may be *. "any" asks for the verb alone.
local function covers(held, wanted)
  local verb, object = held:match("^([^:]+):(.+)$")
  local want_verb, want_object = wanted:match("^([^:]+):(.+)$")
  return (verb == "*" or verb == want_verb) and (object == "*" or want_object == "any" or object == want_object)
end

-- Only the gateway says these; what a caller sends under these names is dropped.
local OURS = { "x-caller", "x-key-id", "x-variant", "x-bucket", "x-assigned-by", "x-endpoint", "x-gateway-secret",
  "x-prediction-id" }

function envoy_on_request(handle)
  local headers = handle:headers()
  for _, name in ipairs(OURS) do headers:remove(name) end
  local rule = handle:metadata()
  if rule:get("public") then return end
  local scope = rule:get("scope")
  if not scope then return refuse(handle, 404, "there is nothing at this address") end
  local jwt = (handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn") or {})["jwt"]
  if not jwt then return refuse(handle, 401, "send your key as 'Authorization: Bearer KEY'") end
  local revoked = rule:get("revoked")
  if revoked and revoked[jwt["jti"]] then return refuse(handle, 401, "this key was revoked") end
  local allowed = false
  for _, held in ipairs(jwt["scopes"] or {}) do allowed = allowed or covers(held, scope) end
  if not allowed then return refuse(handle, 403, "this key lacks the scope " .. scope) end
  headers:add("x-caller", jwt["sub"])
  headers:add("x-key-id", jwt["jti"])
  local endpoint = rule:get("endpoint")
  if not endpoint then return end
  headers:add("x-endpoint", endpoint)
  local runs = rule:get("runs")
  if not runs then -- an exact version was asked for: answered, and left out of the A/B analysis
    headers:add("x-assigned-by", "version")
    return
  end
  if #runs == 0 then return refuse(handle, 503, "no version of " .. endpoint .. " answers yet") end
  local unit = headers:get("x-unit-id")
  if not unit or unit == "" then
    headers:add("x-assigned-by", "no-unit")
    headers:add("x-variant", rule:get("default"))
  else
    local b = bucket(rule:get("salt"), unit)
    for _, run in ipairs(runs) do
      if b < run["end"] then
        headers:add("x-assigned-by", "unit")
        headers:add("x-bucket", string.format("%d", b))
        headers:add("x-variant", run["variant"])
        break
      end
    end
  end
  handle:clearRouteCache() -- the variant's route is chosen by the header just set
end
