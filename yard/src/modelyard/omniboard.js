// Preloaded into Omniboard 2.16.1 (`node --require`), for two things it has no option for.
"use strict";

// Its login is taken from the command line only, which everybody on the machine can read.
process.argv.push("-u", process.env.OMNIBOARD_LOGIN);
delete process.env.OMNIBOARD_LOGIN;

// It listens on every interface. Here on loopback, or where OMNIBOARD_HOST says: in a pod, a policy says who comes in.
const host = process.env.OMNIBOARD_HOST || "127.0.0.1";
const net = require("net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find((item) => typeof item === "function");
  return listen.call(this, Number(port), host, ...(callback ? [callback] : []));
};
