// Preloaded into Omniboard 2.16.1 (`node --require`), for two things it has no option for.
"use strict";

// Its login is taken from the command line only, which everybody on the machine can read.
process.argv.push("-u", process.env.OMNIBOARD_LOGIN);
delete process.env.OMNIBOARD_LOGIN;

// It listens on every interface.
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((item) => typeof item === "function");
  return listen.call(this, Number(port), "127.0.0.1", ...(callback ? [callback] : []));
};
