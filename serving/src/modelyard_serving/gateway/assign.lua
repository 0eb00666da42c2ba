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

-- A scope is verb:object; either part of a held one may be *. "any" asks for the verb alone.
local function covers(held, wanted)
  local verb, object = held:match("^([^:]+):(.+)$")
  local want_verb, want_object = wanted:match("^([^:]+):(.+)$")
  return (verb == "*" or verb == want_verb) and (object == "*" or want_object == "any" or object == want_object)
end

local LONGEST_UNIT = 256 -- bytes

-- What Envoy's metadata says is made into a table anew each time it is asked for; so what is long is kept until it is
-- another. Each of Envoy's workers has its own.
local revoked = { digest = nil, keys = nil }
local splits = {} -- by endpoint

local function is_revoked(everywhere, key)
  local digest = everywhere:get("revoked_digest")
  if revoked.digest ~= digest then
    revoked = { digest = digest, keys = everywhere:get("revoked") or {} }
  end
  return revoked.keys[key]
end

local function split_of(endpoint, rule)
  local split, digest = splits[endpoint], rule:get("split_digest")
  if not split or split.digest ~= digest then
    split = { digest = digest, runs = rule:get("runs"), default = rule:get("default") }
    splits[endpoint] = split
  end
  return split
end

-- Set the headers that say who calls and who answers; or give the status and the sentence of a refusal.
local function decide(handle)
  local headers = handle:headers()
  local everywhere = handle:virtualHost():metadata()
  local length = headers:get("content-length")
  if length and tonumber(length) > everywhere:get("body_bytes") then
    return 413, string.format("the body is larger than %d bytes", everywhere:get("body_bytes"))
  end
  local rule = handle:metadata()
  if rule:get("public") then return end
  local scope = rule:get("scope")
  if not scope then return 404, "there is nothing at this address" end
  local jwt = (handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn") or {})["jwt"]
  if not jwt then return 401, "send your key as 'Authorization: Bearer KEY'" end
  if is_revoked(everywhere, jwt["jti"]) then return 401, "this key was revoked" end
  local allowed = false
  for _, held in ipairs(jwt["scopes"] or {}) do allowed = allowed or covers(held, scope) end
  if not allowed then return 403, "this key lacks the scope " .. scope end
  headers:add("x-caller", jwt["sub"])
  headers:add("x-key-id", jwt["jti"])
  local endpoint = rule:get("endpoint")
  if not endpoint then -- the console judges by scope who may say what
    headers:add("x-scopes", table.concat(jwt["scopes"], ","))
    return
  end
  headers:add("x-endpoint", endpoint)
  headers:add("x-epoch", string.format("%d", rule:get("epoch")))
  local unit, by = headers:get("x-unit-id"), "unit"
  if not unit then unit, by = jwt["sub"], "caller" end
  headers:remove("x-unit-id") -- sent twice, it is one unit of both, and is said once
  if unit == "" or #unit > LONGEST_UNIT then by = "no-unit" else headers:add("x-unit-id", unit) end
  local salt = rule:get("salt")
  if not salt then -- an exact version was asked for: answered, and left out of the A/B analysis
    headers:add("x-assigned-by", "version")
    return
  end
  local split = split_of(endpoint, rule)
  if #split.runs == 0 then return 503, "no version of " .. endpoint .. " answers yet" end
  headers:add("x-assigned-by", by)
  local variant = split.default
  if by ~= "no-unit" then
    local b = bucket(salt, unit)
    headers:add("x-bucket", string.format("%d", b))
    for _, run in ipairs(split.runs) do
      if b < run["end"] then
        variant = run["variant"]
        break
      end
    end
  end
  headers:add("x-variant", variant)
  handle:clearRouteCache() -- the variant's route is chosen by the header just set
end

-- What a caller sends under the names that are set here was dropped before: see OURS in listener.py.
function envoy_on_request(handle)
  local held, status, message = pcall(decide, handle)
  if not held then -- Envoy would let the request pass
    handle:logErr(status)
    status, message = 500, "the gateway could not read this request"
  end
  if status then -- local_reply_config makes {"error": message} of it
    handle:respond({ [":status"] = tostring(status) }, message)
  end
end
